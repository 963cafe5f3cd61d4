"""Every QoS arrives as it was published, and a subscription bounds it."""

from common import Client

client = Client("client")
client.subscribe("a", qos=2)
client.subscribe("b", qos=1)
for topic in ("a", "b"):
    for qos in (0, 1, 2):
        client.publish(topic, "hello", qos)
        message = client.message()
        print(topic, "published", qos, "arrived", message.qos, message.payload.decode())
client.close()
