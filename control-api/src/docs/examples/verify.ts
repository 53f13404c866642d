import { createHash, createHmac, timingSafeEqual } from "node:crypto";

/** Whether the gateway sent this. `secrets`: those of the listing; `headers`: by lower-case name;
 * `body`: the raw bytes; `now`: Unix seconds. */
export function verify(
  secrets: string[],
  headers: Record<string, string | undefined>,
  body: Uint8Array,
  now: number,
): boolean {
  const field = (name: string) => headers[`x-crochet-${name}`] ?? "";
  const timestamp = field("timestamp");
  if (!/^[0-9]{1,15}$/.test(timestamp) || Math.abs(now - Number(timestamp)) > 300) return false;
  const covered = [
    "v2", field("request-id"), timestamp, field("listing-id"), field("buyer-id"),
    field("attempt"), field("charged-micros"), createHash("sha256").update(body).digest("hex"),
  ].join(".");
  const given = field("signature").split(" ").map((one) => Buffer.from(one));
  return secrets.filter((secret) => secret.startsWith("whsec_")).some((secret) => {
    const key = Buffer.from(secret.replace(/^whsec_/, ""), "base64");
    const tag = Buffer.from("v2," + createHmac("sha256", key).update(covered).digest("base64"));
    return given.some((one) => one.length === tag.length && timingSafeEqual(one, tag));
  });
}
