// MQTT.js as a program that tests talk to; see README.md.
import fs from "node:fs";
import readline from "node:readline";

import mqtt from "mqtt";

const wanted = JSON.parse(process.argv[2]);
const isV5 = wanted.version === 5;
const say = (words) => process.stdout.write(`${JSON.stringify(words)}\n`);

// What a message carries, in the words of the tests.
const names = {
  contentType: "content_type",
  responseTopic: "response_topic",
  payloadFormatIndicator: "payload_format",
  messageExpiryInterval: "expiry",
};

function readProperties(properties = {}) {
  const found = {};
  for (const [theirs, ours] of Object.entries(names)) {
    if (properties[theirs] !== undefined) found[ours] = properties[theirs];
  }
  // paho and the wire know a number.
  if (typeof found.payload_format === "boolean") found.payload_format = Number(found.payload_format);
  if (properties.correlationData) found.correlation = properties.correlationData.toString();
  if (properties.userProperties) {
    found.user = Object.entries(properties.userProperties).flatMap(([name, value]) => [value].flat().map((one) => [name, one]));
  }
  return found;
}

function writeProperties(words = {}) {
  const properties = {};
  for (const [theirs, ours] of Object.entries(names)) {
    if (words[ours] !== undefined) properties[theirs] = words[ours];
  }
  if (properties.payloadFormatIndicator !== undefined) properties.payloadFormatIndicator = Boolean(properties.payloadFormatIndicator);
  if (words.correlation) properties.correlationData = Buffer.from(words.correlation);
  if (words.user) {
    properties.userProperties = {};
    for (const [name, value] of words.user) {
      const known = properties.userProperties[name];
      properties.userProperties[name] = known === undefined ? value : [known, value].flat();
    }
  }
  return properties;
}

const schemes = { tcp: "mqtt", tls: "mqtts", ws: "ws" };
const path = wanted.transport === "ws" ? "/mqtt" : "";
const client = mqtt.connect(`${schemes[wanted.transport]}://${wanted.host}:${wanted.port}${path}`, {
  protocolVersion: wanted.version,
  clientId: wanted.name,
  username: wanted.user,
  password: wanted.password,
  ca: wanted.ca ? [fs.readFileSync(wanted.ca)] : undefined,
  keepalive: 30,
  reconnectPeriod: 0,
});

const publish = (message) => client.publishAsync(message.topic, message.payload, {
  qos: message.qos,
  retain: message.retain ?? false,
  properties: isV5 ? writeProperties(message.properties) : undefined,
});

client.on("error", (error) => {
  say({ refused: error.code ?? String(error) });
  process.exit(1);
});

client.on("message", (topic, payload, packet) => {
  const properties = isV5 ? readProperties(packet.properties) : {};
  say({ message: { topic, payload: payload.toString(), qos: packet.qos, retain: packet.retain, properties } });
  if (properties.response_topic) {
    const answer = { topic: properties.response_topic, payload: `${wanted.name} answers ${payload}`, qos: 1 };
    void publish({ ...answer, properties: { correlation: properties.correlation } });
  }
});

client.on("connect", async () => {
  await client.subscribeAsync(wanted.filter, { qos: 2 });
  say({ ready: true });
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const message = JSON.parse(line);
    void publish(message).then(() => say({ published: message.topic }));
  }
  await client.endAsync();
});
