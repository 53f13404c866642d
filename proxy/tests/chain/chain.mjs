// A chain of its own (anvil) with the token on it, and a facilitator made of the x402 project's own parts. Arguments: the
// anvil program, the token's source, the addresses that get tokens. Prints one line of JSON when it is ready, serves
// until its input ends.
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { x402Facilitator } from "@x402/core/facilitator";
import { toFacilitatorEvmSigner } from "@x402/evm";
import { registerExactEvmScheme } from "@x402/evm/exact/facilitator";
import solc from "solc";
import { createTestClient, http, publicActions, walletActions } from "viem";
import { privateKeyToAccount } from "viem/accounts";
import { baseSepolia } from "viem/chains";

const TOKEN = "0x036CbD53842c5426634e7929541eC2318f3dCF7e";
const NETWORK = "eip155:84532";
const [program, source, ...payers] = process.argv.slice(2);

const anvil = spawn(program, ["--chain-id", "84532", "--port", "0", "--host", "127.0.0.1"], {
  stdio: ["ignore", "pipe", "inherit"],
});
const end = () => {
  anvil.kill("SIGKILL");
  process.exit(0);
};
process.stdin.on("end", end).resume();
process.on("SIGTERM", end);

let url;
for await (const line of createInterface({ input: anvil.stdout })) {
  const found = /Listening on (127\.0\.0\.1:\d+)/.exec(line);
  if (found) {
    url = `http://${found[1]}`;
    break;
  }
}
anvil.stdout.resume();

const input = {
  language: "Solidity",
  sources: { "Token.sol": { content: readFileSync(source, "utf8") } },
  settings: { outputSelection: { "*": { "*": ["abi", "evm.deployedBytecode.object"] } } },
};
const compiled = JSON.parse(solc.compile(JSON.stringify(input)));
const token = compiled.contracts["Token.sol"].Token;

const transport = http(url, { retryCount: 0 });
const chain = { ...baseSepolia, rpcUrls: { default: { http: [url] } } };
// One of the accounts that anvil has money for.
const account = privateKeyToAccount("0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80");
const node = createTestClient({ mode: "anvil", chain, transport, account, pollingInterval: 50 })
  .extend(publicActions)
  .extend(walletActions);
await node.setCode({ address: TOKEN, bytecode: `0x${token.evm.deployedBytecode.object}` });
const contract = { address: TOKEN, abi: token.abi };
for (const payer of payers) {
  const hash = await node.writeContract({ ...contract, functionName: "mint", args: [payer, 1_000_000n] });
  await node.waitForTransactionReceipt({ hash });
}

const signer = toFacilitatorEvmSigner({
  address: account.address,
  readContract: (call) => node.readContract(call),
  verifyTypedData: (call) => node.verifyTypedData(call),
  writeContract: (call) => node.writeContract(call),
  sendTransaction: (call) => node.sendTransaction(call),
  waitForTransactionReceipt: (call) => node.waitForTransactionReceipt(call),
  getCode: (call) => node.getCode(call),
});
const facilitator = registerExactEvmScheme(new x402Facilitator(), { signer, networks: NETWORK });

// The answer of the next settlements is lost, as often as this says.
let lost = 0;
const routes = {
  "GET /supported": async () => facilitator.getSupported(),
  "POST /verify": async (body) => facilitator.verify(body.paymentPayload, body.paymentRequirements),
  "POST /settle": async (body) => facilitator.settle(body.paymentPayload, body.paymentRequirements),
  "POST /_lose": async (body) => ((lost = body.settlements), {}),
  "GET /_balances": async () => {
    const of = async (address) => [
      address.toLowerCase(),
      Number(await node.readContract({ ...contract, functionName: "balanceOf", args: [address] })),
    ];
    const wallets = [...payers, "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"];
    return Object.fromEntries(await Promise.all(wallets.map(of)));
  },
  "POST /_receipt": async (body) => {
    const receipt = await node.getTransactionReceipt({ hash: body.transaction });
    return { status: receipt.status, to: receipt.to, logs: receipt.logs.length };
  },
};
const server = createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const text = Buffer.concat(chunks).toString();
  const name = `${request.method} ${request.url}`;
  let [status, answer] = [200, {}];
  try {
    answer = await routes[name](text ? JSON.parse(text) : {});
  } catch (error) {
    [status, answer] = [500, { error: String(error) }];
  }
  if (name === "POST /settle" && lost > 0) {
    lost -= 1;
    return response.destroy();
  }
  response.writeHead(status, { "content-type": "application/json" });
  response.end(JSON.stringify(answer, (_, value) => (typeof value === "bigint" ? value.toString() : value)));
});
server.listen(0, "127.0.0.1", () => {
  console.log(JSON.stringify({ facilitator: `http://127.0.0.1:${server.address().port}`, chain: url }));
});
