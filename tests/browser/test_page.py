"""The status page in a real browser, over the operator's own cache and port."""

import json
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest

from copilot_operator.domain.kinds import TENANT
from tests.support.browser import Page, browser
from tests.support.status_page import World, condition, many, served

HOSTILE: Final = "<script>document.title = 'taken'</script><img src=x onerror=\"document.title = 'taken'\">"
TAB, ENTER = ("Tab", 9), ("Enter", 13)


@pytest.fixture
async def page() -> AsyncIterator[Page]:
    async with browser() as opened:
        yield opened


async def look(page: Page, url: str) -> None:
    await page.open(url)
    await page.wait_for("document.getElementById('state').textContent === 'live'")


async def rows(page: Page, part: str) -> list[list[str]]:
    """Texts of the cells of a table."""
    cells = "[...row.cells].map((cell) => cell.innerText)"
    found: list[list[str]] = await page.evaluate(
        f"[...document.querySelector('#{part} tbody').rows].map((row) => {cells})"
    )
    return found


async def test_all_parts_are_shown_and_follow_what_changes(page: Page) -> None:
    world = World()
    world.event(world.pool(), "UpdateFinished", "Revision 2 is everywhere")
    world.tenant(sessions={"active": 1, "loaded": 4, "stored": 9, "time": "2030-01-02T11:59:00Z"})
    world.server()
    async with served(world) as url:
        await look(page, url)
        assert await page.evaluate("document.getElementById('who').textContent") == "operator-a leads"
        assert (await rows(page, "pools"))[0][:6] == ["saas", "team", "Dedicated", "PoolReady", "1/2", "–"]
        assert (await rows(page, "tenants"))[0][:8] == ["alice", "team", "saas", "Ready", "ServerReady", "1", "4", "9"]
        assert (await rows(page, "servers"))[0][4:10] == [
            "copilot-alice-x ready on node-1", "Healthy", "1", "3", "7", "256 MiB",
        ]  # fmt: skip
        assert (await rows(page, "events"))[0][1:] == [
            "UpdateFinished",
            "CopilotPool team/saas",
            "Revision 2 is everywhere",
        ]
        assert await rows(page, "drains") == []
        world.tenant(
            "alice",
            condition(reason="Draining", message="Waits for 2 turns"),
            phase="Draining",
            drain={
                "cause": "NodeDrain",
                "startTime": "2030-01-02T11:59:00Z",
                "deadline": "2030-01-02T12:08:00Z",
                "busy": 2,
            },
        )
        await page.wait_for("document.querySelector('#drains tbody').innerText.includes('NodeDrain, 2 busy')")
        assert (await rows(page, "tenants"))[0][4] == "Draining"
        assert "Waits for 2 turns" in (await rows(page, "tenants"))[0][9]
        world.cache.drop(TENANT, world.tenant("alice"))
        await page.wait_for("document.querySelector('#tenants tbody').rows.length === 0")
    assert page.complaints == []


async def test_who_stands_by_says_who_leads(page: Page) -> None:
    world = World(leads=False)
    world.tenant()
    world.server()
    async with served(world) as url:
        await look(page, url)
        who = await page.evaluate("document.getElementById('who').textContent")
        assert "operator-a stands by: operator-b leads" in who
        assert (await rows(page, "tenants"))[0][4] == "ServerReady"
        assert (await rows(page, "servers"))[0][5] == "known to the leader"


async def test_markup_in_names_and_messages_is_shown_as_text(page: Page) -> None:
    """By the page, which makes elements alone; and were it not, the policy would not let it run (the next test)."""
    world = World()
    world.pool()
    tenant = world.tenant(f"bob{HOSTILE}", condition(reason="InvalidSpec", message=HOSTILE), phase=HOSTILE)
    world.server(f"bob{HOSTILE}")
    world.event(tenant, "InvalidSpec", HOSTILE, "Warning")
    async with served(world) as url:
        await look(page, url)
        (row,) = await rows(page, "tenants")
        assert row[0] == f"bob{HOSTILE}"
        assert row[3] == HOSTILE
        assert HOSTILE in row[9]
        assert (await rows(page, "events"))[0][3] == HOSTILE
        assert await page.evaluate("document.querySelectorAll('main script, main img').length") == 0
        assert await page.evaluate("document.title") == "Copilot operator"
    assert page.complaints == []


async def test_the_policy_runs_nothing_that_is_not_in_the_file(page: Page) -> None:
    """What a mistake in the page would do, done on purpose."""
    async with served(World()) as url:
        await look(page, url)
        html = "document.body.innerHTML = '<b>x</b>'"
        assert await page.evaluate(f"try {{ {html}; 'done' }} catch (error) {{ error.name }}") == "TypeError"
        added = "const made = document.createElement('script'); made.textContent = 'window.ran = 1';"
        attempt = (
            f"(() => {{ try {{ {added} document.body.append(made) }} catch (error) {{}} return window.ran ?? 'no' }})()"
        )
        assert await page.evaluate(attempt) == "no"
        elsewhere = "fetch('http://localhost:1/').then(() => 'sent', () => 'refused')"
        assert await page.evaluate(elsewhere) == "refused"
        assert any("Content Security Policy" in each for each in page.complaints)


async def test_two_thousand_tenants_are_paged_and_searched(page: Page) -> None:
    world = World()
    many(world, 2000, lambda number: f"Message of number {number}")
    async with served(world) as url:
        await look(page, url)
        assert len(await rows(page, "tenants")) == 50
        count = "document.querySelector('#tenants .count').textContent"
        assert await page.evaluate(count) == "1–50 of 2000"
        await page.evaluate("document.querySelectorAll('#tenants button')[1].click()")
        assert (await rows(page, "tenants"))[0][0] == "tenant-0050"
        await page.evaluate("document.getElementById('words').focus()")
        await page.type("number 1234")
        await page.wait_for("document.querySelector('#tenants tbody').rows.length === 1")
        assert (await rows(page, "tenants"))[0][0] == "tenant-1234"
        assert await page.evaluate(count) == "1 of 2000"
        clear = (
            "(() => {const words = document.getElementById('words'); words.value = ''; words.form.requestSubmit()})()"
        )
        await page.evaluate(clear)
        await page.evaluate("document.getElementById('troubled').click()")
        await page.wait_for(f"{count} === '1–50 of 200 of 2000'")
        assert {row[4] for row in await rows(page, "tenants")} == {"CrashLooping"}
    assert page.complaints == []


async def test_the_keyboard_reaches_search_and_conditions_and_keeps_its_place(page: Page) -> None:
    world = World()
    world.pool()
    world.tenant()
    async with served(world) as url:
        await look(page, url)
        visited: list[Any] = []
        for _ in range(30):
            await page.press(*TAB)
            visited.append(await page.evaluate("document.activeElement.id || document.activeElement.tagName"))
            if await page.evaluate("document.activeElement.closest('#tenants') !== null"):
                break
        assert {"words", "namespace", "troubled"} <= set(visited)
        assert visited[-1] == "SUMMARY"
        await page.press(*ENTER, text="\r")
        await page.wait_for("document.querySelector('#tenants details').open")
        world.tenant("alice", condition(message="Answers again"))
        await page.wait_for("document.querySelector('#tenants').innerText.includes('Answers again')")
        assert await page.evaluate("document.querySelector('#tenants details').open"), "it stays open"
        assert await page.evaluate("document.activeElement.tagName") == "SUMMARY", "and has the focus"


async def test_tables_say_what_they_are(page: Page) -> None:
    """As a screen reader is told it: by the browser's own accessibility tree."""
    world = World()
    world.pool()
    world.tenant()
    async with served(world) as url:
        await look(page, url)
        nodes = (await page.call("Accessibility.getFullAXTree"))["nodes"]
        seen = {(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if "role" in node}
        assert {("table", "Pools"), ("table", "Tenants"), ("columnheader", "Phase"), ("rowheader", "alice")} <= seen
        assert {("searchbox", "Search"), ("heading", "Copilot operator"), ("navigation", "Overview")} <= seen
        unnamed = [role for role, name in seen if role in ("button", "link", "combobox", "checkbox") and not name]
        assert unnamed == []


CONTRAST: Final = """[...document.querySelectorAll('h1, .soft, .good, .bad, .busy, tbody th, thead th')].map((each) => {
  const light = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map((part) => part / 255)
    .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, place) => sum + part * [0.2126, 0.7152, 0.0722][place], 0);
  let behind = each;
  while (behind && getComputedStyle(behind).backgroundColor === 'rgba(0, 0, 0, 0)') behind = behind.parentElement;
  const two = [getComputedStyle(each).color, getComputedStyle(behind).backgroundColor].map(light).sort((a, b) => b - a);
  return (two[0] + 0.05) / (two[1] + 0.05);
})"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_text_can_be_read_in_light_and_dark(page: Page, scheme: str) -> None:
    """WCAG 2.2, 1.4.3: 4.5 to 1."""
    world = World()
    world.pool()
    world.tenant(
        "alice",
        condition(reason="CrashLooping"),
        phase="Failed",
        drain={"cause": "Update", "deadline": "2030-01-02T12:08:00Z"},
    )
    world.server()
    async with served(world) as url:
        await page.open("about:blank")
        await page.colours(scheme)
        await page.call("Page.navigate", url=url)
        await page.wait_for("document.getElementById('state').textContent === 'live'")
        ground = await page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 28)"}[scheme]
        found = await page.evaluate(CONTRAST)
        assert len(found) > 10
        assert min(found) >= 4.5, json.dumps(sorted(found)[:3])
