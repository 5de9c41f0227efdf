// An endpoint of a push subscription: verifies each request (Standard Webhooks, v1 and v1a), and acts on each message once.
//
//   SECRET=whsec_… node receiver.mjs [PORT]
import { createHmac, createPublicKey, timingSafeEqual, verify } from "node:crypto";
import { createServer } from "node:http";

const TOLERANCE = Number(process.env.TOLERANCE ?? 300); // seconds, both ways
const MAX_BODY = 2 << 20;
const [version, matches] = verifier(process.env.SECRET ?? "");
const seen = new Set(); // a real one remembers ids in its database, in the transaction of what it does

/** The algorithm by the kind of the key, never by what a request names. */
function verifier(secret) {
  const [kind, text] = secret.split("_");
  if (kind === "whsec") {
    const key = Buffer.from(text, "base64");
    return ["v1", (signed, signature) => {
      const mac = createHmac("sha256", key).update(signed).digest();
      return mac.length === signature.length && timingSafeEqual(mac, signature);
    }];
  }
  if (kind === "whpk") {
    const x = Buffer.from(text, "base64").toString("base64url");
    const key = createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x }, format: "jwk" });
    return ["v1a", (signed, signature) => verify(null, signed, key, signature)];
  }
  throw new Error("SECRET must be whsec_… or whpk_…");
}

function isGenuine(headers, body) {
  const { "webhook-id": id, "webhook-timestamp": timestamp, "webhook-signature": signatures = "" } = headers;
  if (!/^\d+$/.test(timestamp) || Math.abs(Date.now() / 1000 - Number(timestamp)) > TOLERANCE) return false;
  const signed = Buffer.concat([Buffer.from(`${id}.${timestamp}.`), body]);
  return signatures.split(" ").map((one) => one.split(","))
    .some(([named, text = ""]) => named === version && matches(signed, Buffer.from(text, "base64")));
}

async function hook(request, response) {
  if (!(Number(request.headers["content-length"]) <= MAX_BODY)) return response.writeHead(413).end();
  const body = Buffer.concat(await request.toArray());
  if (!isGenuine(request.headers, body)) return response.writeHead(401).end();
  const id = request.headers["webhook-id"];
  if (!seen.has(id)) {
    process.stdout.write(Buffer.concat([Buffer.from(`${id} `), body, Buffer.from("\n")]));
    seen.add(id);
  }
  response.writeHead(204).end();
}

const server = createServer((request, response) => hook(request, response).catch(() => response.destroy()));
server.listen(Number(process.argv[2] ?? 9000), "127.0.0.1");
