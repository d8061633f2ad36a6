// A Sparkplug host application on the npm package sparkplug-client: prints a JSON
// object a message of node GROUP/NODE, and does what its standard input says, a
// word a line:
//
//	online   says on spBv1.0/STATE/ID that it is there; the broker says when it is not
//	offline  takes that back
//	rebirth  asks the node for births
//
// usage: node host.mjs BROKER-URL GROUP NODE ID
import { createInterface } from 'node:readline';
import sparkplug from 'sparkplug-client';
import mqtt from 'mqtt';
import payloads from 'sparkplug-payload';

const [url, group, node, id] = process.argv.slice(2);
const stateTopic = `spBv1.0/STATE/${id}`;

const plain = (v) => {
  if (v === null || v === undefined) return null;
  if (Buffer.isBuffer(v) || v instanceof Uint8Array) return Buffer.from(v).toString('hex');
  return typeof v === 'boolean' ? v : v.toString();
};
const say = (o) => process.stdout.write(JSON.stringify(o) + '\n');

const client = sparkplug.newClient({
  serverUrl: url, username: '', password: '', groupId: 'hosts', edgeNode: id, clientId: `host-${id}`, version: 'spBv1.0', publishDeath: false,
});
client.on('error', (e) => { say({ error: String(e) }); process.exit(1); });
client.on('message', (topic, payload) => {
  const [, , kind, , device] = topic.split('/');
  say({
    kind, device: device ?? '', seq: payload.seq === undefined ? -1 : Number(payload.seq), timestamp: Number(payload.timestamp),
    metrics: (payload.metrics ?? []).map((m) => ({
      name: m.name ?? '', alias: Number(m.alias ?? 0), type: m.type ?? '', timestamp: Number(m.timestamp), historical: m.isHistorical === true,
      value: plain(m.value), properties: Object.fromEntries(Object.entries(m.properties ?? {}).map(([k, p]) => [k, plain(p.value)])),
    })),
  });
});
client.on('connect', () => client.subscribeTopic(`spBv1.0/${group}/+/${node}/#`, { qos: 1 }, () => say({ kind: 'ready' })));

let state;
const commands = {
  online() {
    const payload = (online, timestamp) => JSON.stringify({ online, timestamp });
    const timestamp = Date.now();
    state = mqtt.connect(url, { clientId: `state-${id}`, clean: true, will: { topic: stateTopic, payload: payload(false, timestamp), qos: 1, retain: true } });
    state.on('connect', () => state.publish(stateTopic, payload(true, timestamp), { qos: 1, retain: true }));
  },
  offline() {
    state.publish(stateTopic, JSON.stringify({ online: false, timestamp: Date.now() }), { qos: 1, retain: true }, () => state.end());
  },
  rebirth() {
    const payload = payloads.get('spBv1.0').encodePayload({ timestamp: Date.now(), metrics: [{ name: 'Node Control/Rebirth', type: 'Boolean', value: true }] });
    client.client.publish(`spBv1.0/${group}/NCMD/${node}`, Buffer.from(payload), { qos: 0 });
  },
};
const lines = createInterface({ input: process.stdin });
lines.on('line', (line) => commands[line]());
lines.on('close', () => process.exit(0));
