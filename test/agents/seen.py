"""What a recorder saw, as runs."""

import sidelight


class Run:
    def __init__(self, run_id, start, end, events):
        self.id, self.start, self.end, self.events = run_id, start, end, events

    def __getattr__(self, name):
        return self.start.get(name)

    @property
    def text(self):
        """The text of the answer, whatever its form."""
        content = self.end["output"][0]["content"]
        return content if isinstance(content, str) else "".join(b.get("text", "") for b in content)

    @property
    def usage(self):
        return self.end.get("usage")

    @property
    def error(self):
        return self.end.get("error", {}).get("type")

    @property
    def chunks(self):
        return self.end.get("attrs", {}).get("sidelight.chunks")


class Seen:
    """The runs among a recorder's messages, in the order they began. Each has one start and one end."""

    def __init__(self, recorder):
        assert sidelight.flush(5)
        messages = [m for m in recorder.messages if m != "EOF" and m[0] in (1, 2, 3)]
        starts = {m[1]: m[4] for m in messages if m[0] == 1}
        ends = {m[1]: m[4] for m in messages if m[0] == 2}
        events = [(m[1], m[4]) for m in messages if m[0] == 3]
        assert len(messages) == len(starts) + len(ends) + len(events)
        assert starts.keys() == ends.keys()
        events = [event for event in events if event[1] != "partial_output"]  # as many as it takes long
        self.runs = [Run(i, starts[i], ends[i], [n for r, n in events if r == i]) for i in starts]

    def of(self, kind):
        return [run for run in self.runs if run.kind == kind]

    def one(self):
        (run,) = self.runs
        return run

    def path(self, run):
        """The names from the root down to a run."""
        above = [r for r in self.runs if r.id == run.parent]
        return (*self.path(above[0]), run.name) if above else (run.name,)

    def tree(self):
        return sorted(self.path(run) for run in self.runs)
