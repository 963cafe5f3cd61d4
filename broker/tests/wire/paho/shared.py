"""A group shares its messages out; a member that leaves with unacknowledged ones leaves them to the other."""

from common import Client

one, other, sender = Client("one"), Client("other"), Client("sender")
one.paho.manual_ack_set(True)
for member in (one, other):
    member.subscribe("$share/group/work", qos=1)
for number in range(20):
    sender.publish("work", str(number), 1)
sender.published(20)
kept = {int(one.message().payload) for _ in range(10)}
done = {int(other.message().payload) for _ in range(10)}
print("shared out", len(kept), len(done), sorted(kept | done) == list(range(20)))
one.vanish()
taken_over = [int(other.message().payload) for _ in range(10)]
print("taken over", taken_over == sorted(kept))
other.close()
sender.close()
