"""How long something takes, as people say it."""


def duration(seconds):
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"


def clock(seconds):
    """For what goes on: one sees it run."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
