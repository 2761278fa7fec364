"""A server that counts the preview pictures that it sends."""

from champ.server import Server


class WatchingServer(Server):
    pictures = 0

    def events(self, client, timeout):
        for kind, data in super().events(client, timeout):
            self.pictures += kind == "picture"
            yield kind, data
