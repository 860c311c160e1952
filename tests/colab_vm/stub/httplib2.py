"""Stands for httplib2, as far as google.colab lets its errors through."""


class HttpLib2Error(Exception):
    pass


class ServerNotFoundError(HttpLib2Error):
    pass
