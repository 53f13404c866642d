# Pays one call with the unmodified client of the x402 project: URL, API key, private key and body as arguments.
import asyncio
import json
import sys

from eth_account import Account
from x402 import x402Client
from x402.http.clients import x402HttpxClient
from x402.mechanisms.evm import EthAccountSigner
from x402.mechanisms.evm.exact import ExactEvmScheme

url, key, secret, body = sys.argv[1:]


async def main():
    client = x402Client()
    client.register("eip155:84532", ExactEvmScheme(signer=EthAccountSigner(Account.from_key(secret))))
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    async with x402HttpxClient(client) as http:
        answer = await http.post(url, headers=headers, content=body)
        await answer.aread()
    receipt = answer.headers.get("payment-response")
    print(json.dumps({"status": answer.status_code, "body": answer.json(), "receipt": receipt}))


asyncio.run(main())
