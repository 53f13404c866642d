// Pays one call with the unmodified client of the x402 project: URL, API key, private key and body as arguments.
import { wrapFetchWithPaymentFromConfig, decodePaymentResponseHeader } from "@x402/fetch";
import { ExactEvmScheme } from "@x402/evm";
import { privateKeyToAccount } from "viem/accounts";

const [url, key, secret, body] = process.argv.slice(2);
const pay = wrapFetchWithPaymentFromConfig(fetch, {
  schemes: [{ network: "eip155:84532", client: new ExactEvmScheme(privateKeyToAccount(secret)) }],
});
const answer = await pay(url, {
  method: "POST",
  headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
  body,
});
const receipt = answer.headers.get("payment-response");
console.log(
  JSON.stringify({
    status: answer.status,
    body: await answer.json(),
    settlement: receipt && decodePaymentResponseHeader(receipt),
  }),
);
