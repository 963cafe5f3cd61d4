"""Wildcards match by level, and a message comes once for filters that overlap."""

from common import Client

client = Client("client")
client.subscribe("+/b/#", "a/#", "x/+")
for topic in ("a/b", "/b/c", "c", "a", "x/y/z", "x/", "last/b"):
    client.publish(topic, "", 1)
topic = None
while topic != "last/b":
    topic = client.message().topic
    print(topic)
client.close()
