"""A request and its response, by response topic and correlation data (MQTT 5)."""

from common import Client

answering = Client("answering")
answering.subscribe("ask")
asking = Client("asking")
asking.subscribe("answers/asking")
asking.publish("ask", "2+2", 1, ResponseTopic="answers/asking", CorrelationData=b"q1")
question = answering.message()
answering.publish(question.properties.ResponseTopic, "4", 1, CorrelationData=question.properties.CorrelationData)
answer = asking.message()
print(answer.payload.decode(), answer.properties.CorrelationData.decode())
asking.close()
answering.close()
