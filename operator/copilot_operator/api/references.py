"""References to objects of the same namespace, and the credentials behind them."""

from copilot_operator.api.model import Model
from copilot_operator.api.names import DataKey, ObjectName


class SecretKeyRef(Model):
    """One key of a Secret in the same namespace."""

    name: ObjectName
    """Name of the Secret."""
    key: DataKey
    """Key in the Secret."""


class ConfigMapKeyRef(Model):
    """One key of a ConfigMap in the same namespace."""

    name: ObjectName
    """Name of the ConfigMap."""
    key: DataKey
    """Key in the ConfigMap."""


class ImagePullSecret(Model):
    """A Secret with the credentials of a registry."""

    name: ObjectName
    """Name of a Secret of type kubernetes.io/dockerconfigjson in the same namespace."""


class GitHubAuth(Model):
    """A GitHub identity with Copilot."""

    token_secret_ref: SecretKeyRef
    """The key that holds a GitHub token (gho_..., ghu_... or github_pat_...; classic tokens, ghp_..., are not accepted
    by Copilot). The Secret must carry the label copilot-operator.io/tenant-usable: "true"; a changed token restarts
    the server through a drain."""


class Auth(Model):
    """The credential that servers use towards GitHub."""

    git_hub: GitHubAuth
    """GitHub identity that pays for and answers requests."""
