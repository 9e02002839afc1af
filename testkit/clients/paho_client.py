"""paho-mqtt as a program that tests talk to; see README.md."""

import json
import sys

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

WANTED = json.loads(sys.argv[1])
IS_V5 = WANTED["version"] == 5


def say(words):
    print(json.dumps(words), flush=True)


def read_properties(properties):
    """What a message carries, in the words of the tests."""
    names = {
        "ContentType": "content_type",
        "ResponseTopic": "response_topic",
        "PayloadFormatIndicator": "payload_format",
        "MessageExpiryInterval": "expiry",
    }
    found = {ours: getattr(properties, theirs) for theirs, ours in names.items() if hasattr(properties, theirs)}
    if hasattr(properties, "CorrelationData"):
        found["correlation"] = properties.CorrelationData.decode()
    if hasattr(properties, "UserProperty"):
        found["user"] = [list(pair) for pair in properties.UserProperty]
    return found


def write_properties(wanted):
    if not IS_V5:
        return None
    properties = Properties(PacketTypes.PUBLISH)
    if "content_type" in wanted:
        properties.ContentType = wanted["content_type"]
    if "response_topic" in wanted:
        properties.ResponseTopic = wanted["response_topic"]
    if "payload_format" in wanted:
        properties.PayloadFormatIndicator = wanted["payload_format"]
    if "expiry" in wanted:
        properties.MessageExpiryInterval = wanted["expiry"]
    if "correlation" in wanted:
        properties.CorrelationData = wanted["correlation"].encode()
    if "user" in wanted:
        properties.UserProperty = [tuple(pair) for pair in wanted["user"]]
    return properties


def on_connect(client, _data, _flags, reason, _properties):
    if reason.is_failure:
        say({"refused": reason.value})
        sys.exit(1)
    client.subscribe(WANTED["filter"], qos=2)


def on_subscribe(_client, _data, _id, _codes, _properties):
    say({"ready": True})


def on_publish(_client, _data, number, _reason, _properties):
    say({"published": number})


def on_message(client, _data, message):
    properties = read_properties(message.properties) if IS_V5 else {}
    say(
        {
            "message": {
                "topic": message.topic,
                "payload": message.payload.decode(),
                "qos": message.qos,
                "retain": message.retain,
                "properties": properties,
            }
        }
    )
    if "response_topic" in properties:
        answer = {"correlation": properties["correlation"]} if "correlation" in properties else {}
        words = f"{WANTED['name']} answers {message.payload.decode()}"
        client.publish(properties["response_topic"], words, qos=1, properties=write_properties(answer))


def main():
    client = mqtt.Client(
        mqtt.CallbackAPIVersion.VERSION2,
        client_id=WANTED["name"],
        protocol=mqtt.MQTTv5 if IS_V5 else mqtt.MQTTv311,
        transport="websockets" if WANTED["transport"] == "ws" else "tcp",
    )
    client.username_pw_set(WANTED["user"], WANTED["password"])
    if WANTED["transport"] == "ws":
        client.ws_set_options(path="/mqtt")
    if WANTED["transport"] == "tls":
        client.tls_set(ca_certs=WANTED["ca"])
    client.on_connect, client.on_subscribe = on_connect, on_subscribe
    client.on_message, client.on_publish = on_message, on_publish
    client.connect(WANTED["host"], WANTED["port"], keepalive=30)
    client.loop_start()
    for line in sys.stdin:
        wanted = json.loads(line)
        properties = write_properties(wanted.get("properties", {}))
        client.publish(wanted["topic"], wanted["payload"], wanted["qos"], wanted.get("retain", False), properties)
    client.disconnect()
    client.loop_stop()


main()
