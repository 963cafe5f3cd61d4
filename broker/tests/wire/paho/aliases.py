"""Topic aliases both ways (MQTT 5). paho shows them as they come."""

from common import Client

client = Client("client", TopicAliasMaximum=5)
print("allowed", client.connack.TopicAliasMaximum)
client.subscribe("long/topic", qos=1)
for topic, payload in (("long/topic", "first"), ("", "second"), ("", "third")):
    client.publish(topic, payload, 1, TopicAlias=16)
    message = client.message()
    print(repr(message.topic), message.properties.TopicAlias, message.payload.decode())
client.close()
