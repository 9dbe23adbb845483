"""A clock that is always right."""


def settime():
    pass
