"""One filter of a SUBSCRIBE is refused; the other one works, and so does the connection."""

from common import Client

client = Client("client")
print([hex(reason) for reason in client.subscribe("secret/plan", "open", qos=1)])
for topic in ("secret/plan", "open"):
    client.publish(topic, topic, 1)
print(client.message().topic)
client.close()
