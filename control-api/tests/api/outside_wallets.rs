//! Wallets of another make register, link and recover: `eth-account`, PyNaCl and `solders` in Python, `viem` in
//! JavaScript, where `./dev test` could install them.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::support::World;

/// What all of them do, over two wallets `a` and `b`, each with an `address` and a way to sign a text.
const PYTHON: &str = r#"
import hashlib, itertools, json, sys, urllib.request
base, first, second = sys.argv[1], sys.argv[2], sys.argv[3]

def ask(method, path, body=None, key=None):
    headers = {"Content-Type": "application/json"}
    if key:
        headers["Authorization"] = "Bearer " + key
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(base + path, data, headers, method=method)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
        return json.load(answer)["data"]

def solve(pow):
    for n in itertools.count():
        if hashlib.sha256((pow["challenge"] + str(n)).encode()).hexdigest().startswith("0" * pow["difficulty"]):
            return str(n)

def eth_account(seed):
    from eth_account import Account
    from eth_account.messages import encode_defunct
    account = Account.from_key(bytes([seed]) * 32)
    return account.address, lambda text: "0x" + account.sign_message(encode_defunct(text=text)).signature.hex().removeprefix("0x")

def pynacl(seed):
    import base64
    from nacl.signing import SigningKey
    from solders.pubkey import Pubkey
    key = SigningKey(bytes([seed]) * 32)
    return str(Pubkey(bytes(key.verify_key))), lambda text: base64.b64encode(key.sign(text.encode()).signature).decode()

def solders(seed):
    from solders.keypair import Keypair
    pair = Keypair.from_seed(bytes([seed]) * 32)
    return str(pair.pubkey()), lambda text: str(pair.sign_message(text.encode()))

makers = {"eth-account": eth_account, "pynacl": pynacl, "solders": solders}
(a, sign_a), (b, sign_b) = makers[first](71), makers[second](72)

def proof(address, sign, purpose, **more):
    challenge = ask("POST", "/auth/challenge", {"wallet_address": address, "purpose": purpose, **more})
    answer = {"wallet_address": address, "nonce": challenge["nonce"], "signature": sign(challenge["message"])}
    if challenge.get("pow"):
        answer["pow_nonce"] = solve(challenge["pow"])
    return answer

registered = ask("POST", "/register", proof(a, sign_a, "register"))
key, profile = registered["api_key"], registered["profile"]["id"]
linked = ask("POST", "/me/wallets", {
    "existing_wallet": proof(a, sign_a, "link_wallet", profile_id=profile, other_wallet_address=b),
    "new_wallet": proof(b, sign_b, "link_wallet", profile_id=profile, other_wallet_address=a),
}, key)
recovered = ask("POST", "/auth/recover", proof(b, sign_b, "recover"))
me = ask("GET", "/me", None, recovered["api_key"])
print(json.dumps({"same": me["profile"]["id"] == profile, "shown": linked["address"] == b, "wallets": len(me["wallets"])}))
"#;

const JAVASCRIPT: &str = r#"
import { createHash } from "node:crypto";
import { privateKeyToAccount } from "viem/accounts";
const base = process.argv[2];
async function ask(method, path, body, key) {
  const headers = { "Content-Type": "application/json", ...(key && { Authorization: `Bearer ${key}` }) };
  const answer = await fetch(base + path, { method, headers, body: body && JSON.stringify(body) });
  const { data, error } = await answer.json();
  if (error) throw new Error(`${path}: ${error.code}`);
  return data;
}
function solve({ challenge, difficulty }) {
  for (let n = 0; ; n++) {
    const hash = createHash("sha256").update(challenge + n).digest("hex");
    if (hash.startsWith("0".repeat(difficulty))) return String(n);
  }
}
const [a, b] = ["81", "82"].map((byte) => privateKeyToAccount("0x" + byte.repeat(32)));
async function proof(account, purpose, more = {}) {
  const asked = { wallet_address: account.address, purpose, ...more };
  const challenge = await ask("POST", "/auth/challenge", asked);
  const signature = await account.signMessage({ message: challenge.message });
  const answer = { wallet_address: account.address, nonce: challenge.nonce, signature };
  return challenge.pow ? { ...answer, pow_nonce: solve(challenge.pow) } : answer;
}
const { api_key, profile } = await ask("POST", "/register", await proof(a, "register"));
const linked = await ask("POST", "/me/wallets", {
  existing_wallet: await proof(a, "link_wallet", { profile_id: profile.id, other_wallet_address: b.address }),
  new_wallet: await proof(b, "link_wallet", { profile_id: profile.id, other_wallet_address: a.address }),
}, api_key);
const recovered = await ask("POST", "/auth/recover", await proof(b, "recover"));
const me = await ask("GET", "/me", undefined, recovered.api_key);
console.log(JSON.stringify({
  same: me.profile.id === profile.id, shown: linked.address === b.address, wallets: me.wallets.length,
}));
"#;

/// The Python that has the packages, prepared by `./dev test`.
fn python() -> Option<PathBuf> {
    let python = PathBuf::from(std::env::var_os("CROCHET_PYTHON")?);
    let import = Command::new(&python).args(["-c", "import eth_account, nacl, solders"]).stderr(Stdio::null()).status();
    import.is_ok_and(|status| status.success()).then_some(python)
}

/// Runs the other side on a thread of its own, and looks at what it found.
async fn check(name: &str, mut command: Command) {
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("ended").expect("started");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {complaint}");
    let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(found, json!({ "same": true, "shown": true, "wallets": 2 }), "{name}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wallets_in_python_register_link_and_recover() {
    let Some(python) = python() else {
        eprintln!("SKIPPED: no Python with eth-account, pynacl and solders (./dev test sets CROCHET_PYTHON)");
        return;
    };
    // Each family by itself, and one beside the other.
    for (first, second) in [("eth-account", "eth-account"), ("pynacl", "solders"), ("solders", "eth-account")] {
        let world = World::start().await;
        let base = format!("{}/api/v1", world.base);
        let mut command = Command::new(&python);
        command.args(["-c", PYTHON, &base, first, second]);
        check(&format!("{first} and {second}"), command).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wallets_in_javascript_register_link_and_recover() {
    let Some(folder) = std::env::var_os("CROCHET_NODE").map(PathBuf::from) else {
        eprintln!("SKIPPED: no node with viem (./dev test sets CROCHET_NODE)");
        return;
    };
    let world = World::start().await;
    // Beside the packages, where node looks for them; of a name of its own, for tests run at the same time.
    let script = tempfile::Builder::new().suffix(".mjs").tempfile_in(folder).expect("a file");
    std::fs::write(script.path(), JAVASCRIPT).expect("written");
    let base = format!("{}/api/v1", world.base);
    let mut command = Command::new("node");
    command.arg(script.path()).arg(&base);
    check("viem", command).await;
}
