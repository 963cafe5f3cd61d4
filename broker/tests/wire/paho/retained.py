"""A retained message meets a later subscriber, and an empty one clears it."""

from common import Client

client = Client("client")
for payload in ("on", ""):
    client.publish("state", payload, 1, retain=True)
    client.published()
    later = Client("later")
    later.subscribe("state")
    client.publish("state", "now", 1)
    client.published()  # or the next one would be taken for acknowledged when this is
    message = later.message()
    print(message.retain, message.payload.decode())
    later.close()
client.close()
