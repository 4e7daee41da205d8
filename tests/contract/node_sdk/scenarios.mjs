// What an application does with the official Node SDK, and what it saw: the scenarios of ../sdk_scenarios.py, word for
// word. Reads one JSON line {number, scenario, id, place: {url, token, model_url}} each, side by side, and answers with
// {number, seen} or {number, error}. Run with the SDK's directory as the working directory.

import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const sdk = pathToFileURL("node_modules/@github/copilot-sdk/dist/index.js");
const { CopilotClient, RuntimeConnection, defineTool } = await import(sdk);

const TURN_MS = 20_000;
const STEP_MS = 10_000;

class App {
  constructor(client, place) {
    this.client = client;
    this.place = place;
  }

  create(sessionId, settings = {}) {
    return within(this.client.createSession({ sessionId, ...this.withDefaults(settings) }));
  }

  resume(sessionId, settings = {}) {
    return within(this.client.resumeSession(sessionId, this.withDefaults(settings)));
  }

  async listed(prefix) {
    const sessions = await this.client.listSessions();
    return sessions.map((session) => session.sessionId).filter((id) => id.startsWith(prefix)).sort();
  }

  withDefaults(settings) {
    const baseUrl = this.place.model_url;
    const provider = baseUrl && { type: "openai", baseUrl, apiKey: "not-a-key", wireApi: "completions" };
    return { model: "fake-model", ...(provider && { provider }), onPermissionRequest: approve, ...settings };
  }
}

async function app(place, use) {
  const connection = RuntimeConnection.forUri(place.url, { connectionToken: place.token });
  const client = new CopilotClient({ connection });
  await within(client.start());
  try {
    return await use(new App(client, place));
  } finally {
    const errors = await within(client.stop());
    if (errors.length) throw errors[0];
  }
}

class Heard {
  constructor(session) {
    this.events = [];
    this.waiting = [];
    session.on((event) => {
      this.events.push(event);
      this.waiting = this.waiting.filter((look) => !look());
    });
  }

  of(kind) {
    return this.events.filter((event) => event.type === kind).map((event) => event.data);
  }

  until(kind, count = 1) {
    const there = () => this.of(kind).length >= count;
    const wait = new Promise((resolve) => this.waiting.push(() => there() && (resolve(), true)));
    return there() ? undefined : within(wait, TURN_MS);
  }
}

async function within(promise, ms = STEP_MS) {
  let timer;
  const late = new Promise((_, reject) => (timer = setTimeout(() => reject(new Error("no answer")), ms)));
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

const approve = () => ({ kind: "approve-once" });

async function say(session, prompt) {
  const answer = await session.sendAndWait({ prompt }, TURN_MS);
  if (!answer) throw new Error(`no answer to: ${prompt}`);
  return answer.data.content;
}

async function failureOf(promise) {
  try {
    await within(promise);
  } catch (error) {
    return error.message;
  }
  return "no failure";
}

function weather(calls) {
  return defineTool("get_weather", {
    description: "Tells the weather",
    parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
    handler: (given, invocation) => {
      calls.push([invocation.sessionId, invocation.toolName, given]);
      return `rain in ${given.city}`;
    },
  });
}

const WEATHER = 'CALL=`get_weather {"city":"Oslo"}`';

const SCENARIOS = {
  conversation: (place, id) =>
    app(place, async (one) => {
      const session = await one.create(id);
      const answers = [await say(session, "ECHO=`first` NOTE=alpha"), await say(session, "RECALL NOTE=beta")];
      const pong = await one.client.ping("hi");
      return { id: session.sessionId, answers, pong: pong.message };
    }),

  streaming: (place, id) =>
    app(place, async (one) => {
      const session = await one.create(id, { streaming: true });
      const heard = new Heard(session);
      const answer = await say(session, "CHUNKS=4");
      return { deltas: heard.of("assistant.message_delta").map((data) => data.deltaContent), answer };
    }),

  client_tools: (place, id) =>
    app(place, async (one) => {
      const calls = [];
      const session = await one.create(id, { tools: [weather(calls)] });
      return { answer: await say(session, WEATHER), calls };
    }),

  permissions: (place, id) =>
    app(place, async (one) => {
      const [calls, asked] = [[], []];
      const onPermissionRequest = (request, invocation) => {
        asked.push([invocation.sessionId, request.kind, request.toolName]);
        return asked.length === 1 ? { kind: "reject", feedback: "not now" } : approve();
      };
      const session = await one.create(id, { tools: [weather(calls)], onPermissionRequest });
      const [refused, granted] = [await say(session, WEATHER), await say(session, WEATHER)];
      return { asked, calls: calls.length, refused: refused.includes("not now"), granted };
    }),

  ask_user: (place, id) =>
    app(place, async (one) => {
      const questions = [];
      const onUserInputRequest = (request, invocation) => {
        questions.push([invocation.sessionId, request.question, request.choices]);
        return { answer: "blue", wasFreeform: false };
      };
      const session = await one.create(id, { onUserInputRequest });
      const answer = await say(session, 'CALL=`ask_user {"question":"Which colour?","choices":["red","blue"]}`');
      return { questions, answer };
    }),

  hooks: (place, id) =>
    app(place, async (one) => {
      const [calls, hooked] = [[], []];
      const hooks = {
        onUserPromptSubmitted: (given, { sessionId }) => void hooked.push(["submitted", given.sessionId, sessionId]),
        onPreToolUse: (given) => {
          hooked.push(["before", given.toolName, given.sessionId]);
          return { permissionDecision: "allow", modifiedArgs: { city: "Bergen" } };
        },
        onPostToolUse: (given) => void hooked.push(["after", given.toolName, given.sessionId]),
      };
      const session = await one.create(id, { tools: [weather(calls)], hooks });
      return { answer: await say(session, WEATHER), calls, hooked };
    }),

  abort: (place, id) =>
    app(place, async (one) => {
      const session = await one.create(id, { streaming: true });
      const heard = new Heard(session);
      await session.send({ prompt: "CHUNKS=3 STALL=1" });
      await heard.until("assistant.message_delta");
      await session.abort();
      await heard.until("session.idle");
      return { aborts: heard.of("abort").length, next: await say(session, "ECHO=`after`") };
    }),

  failing_turn: (place, id) =>
    app(place, async (one) => {
      const session = await one.create(id);
      const heard = new Heard(session);
      await session.send({ prompt: "ERR=400" });
      await heard.until("session.idle");
      const [error] = heard.of("session.error");
      return { status: error.statusCode, next: await say(session, "ECHO=`after`") };
    }),

  resume: async (place, id) => {
    await app(place, async (one) => say(await one.create(id), "ECHO=`first` NOTE=alpha"));
    return app(place, async (two) => {
      const session = await two.resume(id);
      const events = await session.getEvents();
      const stored = events.filter((event) => event.type === "assistant.message").map((event) => event.data.content);
      return { id: session.sessionId, stored, answer: await say(session, "RECALL") };
    });
  },

  takeover: (place, id) =>
    app(place, (one) =>
      app(place, async (two) => {
        const calls = [];
        const first = await one.create(id);
        await say(first, "ECHO=`first` NOTE=alpha");
        const second = await two.resume(id, { tools: [weather(calls)] });
        return { answer: await say(second, WEATHER), calls, recalled: await say(second, "RECALL") };
      }),
    ),

  two_clients: (place, id) =>
    app(place, (one) =>
      app(place, async (two) => {
        const first = await one.create(id);
        const second = await two.resume(id, { suppressResumeEvent: true });
        const heard = [new Heard(first), new Heard(second)];
        const answers = [];
        for (const [n, speaker] of [first, second].entries()) {
          answers.push(await say(speaker, `ECHO=\`turn ${n + 1}\``));
          for (const each of heard) await each.until("session.idle", n + 1);
        }
        await first.disconnect();
        answers.push(await say(second, "ECHO=`alone`"));
        const texts = heard.map((each) => each.of("assistant.message").map((data) => data.content));
        return { answers, heard: texts };
      }),
    ),

  lists: (place, id) =>
    app(place, async (one) => {
      for (const name of [`${id}-a`, `${id}-b`]) await say(await one.create(name), "hello");
      const found = await one.client.getSessionMetadata(`${id}-a`);
      const unknown = await one.client.getSessionMetadata(`${id}-c`);
      return { listed: await one.listed(id), found: found?.sessionId ?? null, unknown: unknown ?? null };
    }),

  delete: (place, id) =>
    app(place, async (one) => {
      const session = await one.create(id);
      await say(session, "hello");
      const before = await one.listed(id);
      await session.disconnect();
      await one.client.deleteSession(id);
      return {
        before,
        after: await one.listed(id),
        again: await failureOf(one.client.deleteSession(id)),
        resumed: await failureOf(one.resume(id)),
      };
    }),

  refusals: (place, id) =>
    app(place, async (one) => {
      const session = await one.create(id);
      await one.client.deleteSession(id);
      return {
        unknown: await failureOf(one.resume(`${id}-none`)),
        invalid: await failureOf(one.create("no/slash")),
        gone: await failureOf(session.send({ prompt: "hello" })),
      };
    }),

  lifecycle: (place, id) =>
    app(place, async (one) => {
      const told = new Set();
      const deleted = new Promise((resolve) =>
        one.client.onLifecycle((event) => {
          if (event.sessionId !== id) return;
          told.add(event.type);
          if (event.type === "session.deleted") resolve();
        }),
      );
      const session = await one.create(id);
      await say(session, "hello");
      await session.disconnect();
      await one.client.deleteSession(id);
      await within(deleted);
      return [...told].sort();
    }),
};

async function answer(line) {
  const { number, scenario, id, place } = JSON.parse(line);
  let outcome;
  try {
    outcome = { seen: await SCENARIOS[scenario](place, id) };
  } catch (error) {
    outcome = { error: String(error.stack ?? error) };
  }
  process.stdout.write(JSON.stringify({ number, ...outcome }) + "\n");
}

const lines = createInterface({ input: process.stdin });
lines.on("line", (line) => void answer(line));
lines.on("close", () => process.exit(0));
