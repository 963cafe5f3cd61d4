"""Every property of a publish arrives (MQTT 5)."""

from common import Client

client = Client("client")
client.subscribe("a", qos=1, SubscriptionIdentifier=42)
client.publish(
    "a",
    "hello",
    1,
    PayloadFormatIndicator=1,
    MessageExpiryInterval=1_000_000,
    ContentType="text/plain",
    ResponseTopic="answers/1",
    CorrelationData=b"\x00\xff\x01",
    UserProperty=[("colour", "red"), ("colour", "blue"), ("", "ü")],
)
got = client.message().properties
for name in (
    "PayloadFormatIndicator",
    "MessageExpiryInterval",
    "ContentType",
    "ResponseTopic",
    "CorrelationData",
    "UserProperty",
    "SubscriptionIdentifier",
):
    print(name, getattr(got, name))
client.close()
