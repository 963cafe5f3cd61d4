"""The will of a client whose socket closes is published; that of one that says goodbye is not."""

from common import Client

heir = Client("heir")
heir.subscribe("wills/#")
polite = Client("polite", will=("wills/polite", "gone", 1))
polite.close()
lost = Client("lost", will=("wills/lost", "gone", 2))
lost.vanish()
message = heir.message()
print(message.topic, message.qos, message.payload.decode())
heir.close()
