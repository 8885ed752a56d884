"""The directory of registered models: immutable versions, one of them serving per name."""

from service.registry.registered import RegisteredModel
from service.registry.registry import Registration, Registry

__all__ = ["RegisteredModel", "Registration", "Registry"]
