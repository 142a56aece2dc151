"""A daemon that lives on a long-poll subscription, and keeps account of what came."""
import time

from requests import HTTPError
from server import KEEP_ALIVE
from world import Daemon


class Listener(Daemon):
    """With `durable` its place is kept under its name. Subscribes before it starts, so that it sees everything."""

    channel, promiscuous, durable = "node", False, True

    def __init__(self, world, name=None):
        super().__init__(world, name)
        self.events, self.beeps, self.repeated, self.subscribed = [], 0, 0, 0
        self.longest_silence = 0
        self.subscribe()

    def subscribe(self):
        name = f"{self.name}:{self.channel}" if self.durable else None
        self.subscription = self.api.subscribe(self.channel, self.promiscuous, name)
        self.subscribed += 1

    def work(self):
        while not self.world.stopping.is_set():
            begun = time.monotonic()
            try:
                event = self.api.receive_event(self.subscription, block=False)
            except HTTPError as error:  # e.g. somebody ended the subscription
                if error.response.status_code != 404 or self.subscribed > 4:
                    raise
                self.subscribe()
                continue
            # The watchdog: something comes at least with every keep-alive.
            self.longest_silence = max(self.longest_silence, time.monotonic() - begun)
            if event is None:
                self.beeps += 1
            elif self.events and self.events[-1]["_sequence_id"] == event["_sequence_id"]:
                self.repeated += 1  # it was not acknowledged
            else:
                self.events.append(event)
                self.on_event(event["data"])
        self.api.post(f"unsubscribe/{self.subscription}")

    def on_event(self, event):
        pass

    def report(self):
        return (f"{len(self.events)} events, {self.beeps} keep-alives, {self.repeated} repeated, subscribed "
                f"{self.subscribed} time(s), longest poll {self.longest_silence:.1f} s of {KEEP_ALIVE}")
