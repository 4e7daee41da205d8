"""What runs on a node and in the control plane, and how: command lines, configuration files and credentials."""

import base64
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.layout import (
    API_SERVICE_ADDRESS,
    BUSYBOX_IMAGE,
    CLUSTER_DOMAIN,
    CONTAINERD_SOCKET,
    DNS_SERVICE_ADDRESS,
    NODE_ADDRESS,
    NODE_NAME,
    PAUSE_IMAGE,
    POD_CIDR,
    SERVICE_CIDR,
    Layout,
    file_system,
)
from tests.cluster.process import run

# Who the components are to the API server. The roles of all but the first come with Kubernetes.
ADMIN = "admin"
IDENTITIES = {
    ADMIN: ("admin", ["system:masters"]),
    "kube-controller-manager": ("system:kube-controller-manager", []),
    "kube-scheduler": ("system:kube-scheduler", []),
    "kube-proxy": ("system:kube-proxy", []),
    "kubelet": (f"system:node:{NODE_NAME}", ["system:nodes"]),
}

STORAGE_NAMESPACE = "local-path-storage"
STORAGE_ACCOUNT = "local-path-provisioner"
STORAGE_CLASS = "standard"
SHARED_CLASS = "shared"  # its volumes may be mounted by several pods on several nodes (ReadWriteMany)
PROVISIONER = "rancher.io/local-path"
SHARED_PROVISIONER = "rancher.io/shared-path"

# The defaults (20 to 50 requests a second) would be what a test of a thousand objects measures.
CLIENT_RATE = ["--kube-api-qps=500", "--kube-api-burst=1000"]


@dataclass(frozen=True)
class Component:
    """A process of the cluster."""

    name: str
    argv: list[str]


@dataclass(frozen=True)
class Plan:
    """How the components of one cluster are started."""

    layout: Layout
    programs: Path
    port: int
    """The API server's: the same in the cluster's network and, through the forwarder, on the machine's loopback."""
    audit: bool = False

    @property
    def pki(self) -> Path:
        return self.layout.config / "pki"

    def kube(self, component: str, *flags: str) -> Component:
        return Component(component, [str(self.programs / "kube"), component, *flags])

    def kubeconfig(self, identity: str) -> str:
        return str(self.layout.kubeconfig if identity == ADMIN else self.layout.config / f"{identity}.kubeconfig")

    def containerd(self) -> Component:
        return Component("containerd", ["containerd", "--config", str(self.layout.config / "containerd.toml")])

    def etcd(self) -> Component:
        return self.kube(
            "etcd",
            f"--data-dir={self.layout.bulk}/etcd",
            "--listen-client-urls=http://127.0.0.1:2379",
            "--advertise-client-urls=http://127.0.0.1:2379",
            "--listen-peer-urls=http://127.0.0.1:2380",
            "--initial-advertise-peer-urls=http://127.0.0.1:2380",
            "--initial-cluster=default=http://127.0.0.1:2380",
            "--unsafe-no-fsync",
            "--log-level=warn",
            "--quota-backend-bytes=4294967296",
            "--auto-compaction-retention=5m",
        )

    def api_server(self) -> Component:
        policy, log = self.layout.config / "audit.json", self.layout.logs / "audit.log"
        audit = [f"--audit-policy-file={policy}", f"--audit-log-path={log}"] if self.audit else []
        return self.kube(
            "kube-apiserver",
            "--etcd-servers=http://127.0.0.1:2379",
            "--bind-address=0.0.0.0",
            f"--secure-port={self.port}",
            f"--advertise-address={NODE_ADDRESS}",
            f"--service-cluster-ip-range={SERVICE_CIDR}",
            f"--tls-cert-file={self.pki}/serving.crt",
            f"--tls-private-key-file={self.pki}/serving.key",
            f"--service-account-key-file={self.pki}/accounts.key",
            f"--service-account-signing-key-file={self.pki}/accounts.key",
            f"--service-account-issuer=https://kubernetes.default.svc.{CLUSTER_DOMAIN}",
            f"--token-auth-file={self.layout.config}/tokens.csv",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            # Without it the node's name would be looked up in DNS for logs and exec.
            "--kubelet-preferred-address-types=InternalIP",
            "--max-requests-inflight=1600",
            "--max-mutating-requests-inflight=800",
            "--profiling=false",
            *audit,
        )

    def controller_manager(self) -> Component:
        return self.kube(
            "kube-controller-manager",
            f"--kubeconfig={self.kubeconfig('kube-controller-manager')}",
            f"--service-account-private-key-file={self.pki}/accounts.key",
            f"--root-ca-file={self.pki}/ca.crt",
            "--use-service-account-credentials",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
            f"--flex-volume-plugin-dir={self.layout.bulk}/volume-plugins",
            "--concurrent-deployment-syncs=20",
            "--concurrent-replicaset-syncs=20",
            "--concurrent-service-endpoint-syncs=20",
            *CLIENT_RATE,
        )

    def scheduler(self) -> Component:
        return self.kube(
            "kube-scheduler",
            f"--kubeconfig={self.kubeconfig('kube-scheduler')}",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
            *CLIENT_RATE,
        )

    def kubelet(self) -> Component:
        return self.kube(
            "kubelet",
            f"--config={self.layout.config}/kubelet.json",
            f"--kubeconfig={self.kubeconfig('kubelet')}",
            f"--root-dir={self.layout.bulk}/kubelet",
            f"--cert-dir={self.layout.bulk}/kubelet/pki",
            f"--hostname-override={NODE_NAME}",
            f"--node-ip={NODE_ADDRESS}",
        )

    def kube_proxy(self) -> Component:
        config = self.layout.config / "kube-proxy.json"
        return self.kube("kube-proxy", f"--config={config}", f"--hostname-override={NODE_NAME}")

    def dns(self) -> Component:
        listen, domain = f"--listen={NODE_ADDRESS}:53", f"--domain={CLUSTER_DOMAIN}"
        return self.kube("dns", f"--kubeconfig={self.layout.kubeconfig}", listen, domain)

    def provisioners(self) -> list[Component]:
        """Of the default storage class, and of the one whose volumes are shared."""
        return [self._provisioner("local-path", PROVISIONER), self._provisioner("shared-path", SHARED_PROVISIONER)]

    def _provisioner(self, name: str, provisioner: str) -> Component:
        return Component(
            f"{name}-provisioner",
            [
                str(self.programs / "local-path-provisioner"),
                "start",
                f"--kubeconfig={self.layout.kubeconfig}",
                f"--config={self.layout.config}/{name}.json",
                f"--helper-pod-file={self.layout.config}/helper-pod.yaml",
                f"--helper-image={BUSYBOX_IMAGE}",
                f"--namespace={STORAGE_NAMESPACE}",
                f"--service-account-name={STORAGE_ACCOUNT}",
                "--configmap-name=local-path-config",
                f"--provisioner-name={provisioner}",
                "--worker-threads=16",
            ],
        )

    def write(self) -> None:
        """Write every file that the components read."""
        config = self.layout.config
        for directory in (config, self.pki, config / "cni", config / "sysctl", self.layout.logs):
            directory.mkdir(parents=True, exist_ok=True)
        self._certificates()
        self._credentials()
        (config / "containerd.toml").write_text(self._containerd())
        domains = f"search svc.{CLUSTER_DOMAIN} {CLUSTER_DOMAIN}\n"
        self.layout.resolv_conf.write_text(
            f"{domains}nameserver {NODE_ADDRESS}\noptions ndots:5 timeout:2 attempts:2\n"
        )
        # kubelet adds what it finds here to the pods' own.
        (config / "kubelet-resolv.conf").write_text(f"nameserver {NODE_ADDRESS}\n")
        files: dict[str, Any] = {
            "kubelet.json": self._kubelet(),
            "kube-proxy.json": self._kube_proxy(),
            "cni/10-bridge.conflist": _network(),
            "local-path.json": {
                "nodePathMap": [{"node": "DEFAULT_PATH_FOR_NON_LISTED_NODES", "paths": [f"{self.layout.bulk}/volumes"]}]
            },
            "shared-path.json": {"sharedFileSystemPath": f"{self.layout.bulk}/shared-volumes"},
            "helper-pod.yaml": _helper_pod(),
            "audit.json": _audit_policy(),
        }
        for name, content in files.items():
            (config / name).write_text(json.dumps(content, indent=1))

    def _certificates(self) -> None:
        names = ["kubernetes.default.svc", "kubernetes.default", "kubernetes", "localhost", NODE_NAME]
        names.append(f"kubernetes.default.svc.{CLUSTER_DOMAIN}")
        addresses = ["127.0.0.1", NODE_ADDRESS, API_SERVICE_ADDRESS]
        command = [str(self.programs / "kube"), "certificates", str(self.pki), ",".join(addresses), ",".join(names)]
        run(command, timeout_s=30, what="making the cluster's certificates")

    def _credentials(self) -> None:
        authority = base64.b64encode((self.pki / "ca.crt").read_bytes()).decode()
        lines = []
        for identity, (user, groups) in IDENTITIES.items():
            token = secrets.token_urlsafe(32)
            lines.append(f'{token},{user},{user},"{",".join(groups)}"')
            name = f"{self.layout.name}-embedded"
            content = {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [
                    {
                        "name": name,
                        "cluster": {
                            "server": f"https://127.0.0.1:{self.port}",
                            "certificate-authority-data": authority,
                        },
                    }
                ],
                "users": [{"name": user, "user": {"token": token}}],
                "contexts": [{"name": name, "context": {"cluster": name, "user": user}}],
                "current-context": name,
            }
            _write_private(Path(self.kubeconfig(identity)), json.dumps(content, indent=1))
        _write_private(self.layout.config / "tokens.csv", "\n".join(lines) + "\n")

    def _containerd(self) -> str:
        bulk = self.layout.bulk
        # An overlay can not lie on an overlay: in a container without a volume, layers are copied.
        snapshotter = "native" if file_system(self.layout.base) in ("overlay", "aufs") else "overlayfs"
        cri = 'plugins."io.containerd.grpc.v1.cri"'
        # restrict_oom_score_adj: without CAP_SYS_RESOURCE, which many machines withhold, no sandbox starts otherwise.
        return f"""version = 2
root = "{bulk}/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[grpc]
  address = "{CONTAINERD_SOCKET}"
[{cri}]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true
  tolerate_missing_hugetlb_controller = true
  disable_hugetlb_controller = true
  max_concurrent_downloads = 4
  [{cri}.containerd]
    snapshotter = "{snapshotter}"
    default_runtime_name = "runc"
    discard_unpacked_layers = false
    [{cri}.containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [{cri}.containerd.runtimes.runc.options]
        SystemdCgroup = false
  [{cri}.cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{self.layout.config}/cni"
"""

    def _kubelet(self) -> dict[str, Any]:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            # Only what is in the cluster's own network reaches kubelet.
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "tlsCertFile": f"{self.pki}/serving.crt",
            "tlsPrivateKeyFile": f"{self.pki}/serving.key",
            "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
            "cgroupDriver": "cgroupfs",
            "failCgroupV1": False,
            "failSwapOn": False,
            "oomScoreAdj": 0,
            "maxOpenFiles": 20000,
            "maxPods": 250,
            "serializeImagePulls": False,
            "kubeAPIQPS": 500,
            "kubeAPIBurst": 1000,
            "eventRecordQPS": 100,
            "eventBurst": 200,
            "clusterDNS": [DNS_SERVICE_ADDRESS],
            "clusterDomain": CLUSTER_DOMAIN,
            "resolvConf": f"{self.layout.config}/kubelet-resolv.conf",
            "podLogsDir": "/var/log/pods",
            "volumePluginDir": f"{self.layout.bulk}/volume-plugins",
            # Images that go can not be pulled again.
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            # A slow first look at the node costs the start a second.
            "nodeStatusUpdateFrequency": "5s",
        }

    def _kube_proxy(self) -> dict[str, Any]:
        return {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "iptables",
            "clientConnection": {"kubeconfig": self.kubeconfig("kube-proxy")},
            "clusterCIDR": POD_CIDR,
            "oomScoreAdj": 0,
            "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
            "iptables": {"minSyncPeriod": "100ms"},
        }


def _network() -> dict[str, Any]:
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "ipMasq": False,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "dataDir": "/run/cni-addresses",
            "ranges": [[{"subnet": POD_CIDR}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "0.4.0", "name": "cluster", "plugins": [bridge, portmap]}


def _helper_pod() -> dict[str, Any]:
    container = {"name": "helper-pod", "image": BUSYBOX_IMAGE, "imagePullPolicy": "IfNotPresent"}
    spec = {"terminationGracePeriodSeconds": 0, "automountServiceAccountToken": False, "containers": [container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "helper-pod"}, "spec": spec}


def _audit_policy() -> dict[str, Any]:
    """What is written, and all that service accounts ask for but Kubernetes' own."""
    reads = {"level": "None", "verbs": ["get", "list", "watch"]}
    rules = [
        reads | {"userGroups": ["system:serviceaccounts:kube-system"]},
        {"level": "Metadata", "userGroups": ["system:serviceaccounts"]},
        {"level": "None", "resources": [{"group": "coordination.k8s.io"}]},
        reads,
        {"level": "Metadata"},
    ]
    return {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"], "rules": rules}


def dns_objects() -> list[tuple[str, dict[str, Any]]]:
    """The Service that pods' resolvers ask, and the process on the node that answers it."""
    ports = [("dns", "UDP"), ("dns-tcp", "TCP")]
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "kube-dns", "labels": {"k8s-app": "kube-dns"}},
        "spec": {
            "clusterIP": DNS_SERVICE_ADDRESS,
            "ports": [{"name": name, "port": 53, "protocol": protocol} for name, protocol in ports],
        },
    }
    endpoints = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "kube-dns-node", "labels": {"kubernetes.io/service-name": "kube-dns"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [NODE_ADDRESS], "conditions": {"ready": True}}],
        "ports": [{"name": name, "port": 53, "protocol": protocol} for name, protocol in ports],
    }
    return [
        ("/api/v1/namespaces/kube-system/services", service),
        ("/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices", endpoints),
    ]


def storage_objects() -> list[tuple[str, dict[str, Any]]]:
    """The storage classes and what its provisioner reads: (collection's path, object)."""
    scripts = {"setup": 'mkdir -m 0777 -p "$VOL_DIR"\n', "teardown": 'rm -rf "$VOL_DIR"\n'}
    core = "/api/v1/namespaces"
    return [
        (core, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": STORAGE_NAMESPACE}}),
        (
            f"{core}/{STORAGE_NAMESPACE}/serviceaccounts",
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": STORAGE_ACCOUNT}},
        ),
        (
            f"{core}/{STORAGE_NAMESPACE}/configmaps",
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "local-path-config"}, "data": scripts},
        ),
        *(
            (
                "/apis/storage.k8s.io/v1/storageclasses",
                {
                    "apiVersion": "storage.k8s.io/v1",
                    "kind": "StorageClass",
                    "metadata": {
                        "name": name,
                        "annotations": {"storageclass.kubernetes.io/is-default-class": default},
                    },
                    "provisioner": provisioner,
                    "reclaimPolicy": "Delete",
                    "volumeBindingMode": "WaitForFirstConsumer",
                },
            )
            for name, provisioner, default in (
                (STORAGE_CLASS, PROVISIONER, "true"),
                (SHARED_CLASS, SHARED_PROVISIONER, "false"),
            )
        ),
    ]


def _write_private(path: Path, content: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(content)
