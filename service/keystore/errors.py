"""What the key store raises; SQL errors never leave the package."""


class KeyStoreError(Exception):
    """Base of what this package raises.

    KeyStoreError
    ├── KeysUnavailableError    the store is away, full or locked, or no key is left to hand out
    └── WrongKeyError           the key-encryption key is lost, malformed, or not this store's
    """


class KeysUnavailableError(KeyStoreError):
    """The key store does not give or destroy keys at the moment; retry later."""


class WrongKeyError(KeyStoreError):
    """The key-encryption key is not the one this store's keys are wrapped under."""
