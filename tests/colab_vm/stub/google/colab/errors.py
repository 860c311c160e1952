"""The exceptions of google.colab."""


class Error(Exception):
    pass


class AuthorizationError(Error):
    pass


class RuntimeManagementError(Error):
    pass
