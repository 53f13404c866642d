//! What each route is for, what it takes, gives and refuses: one row beside each row of the route table, and one for the
//! gateway's own. Who may ask stands in the route table alone, and what every route may refuse is added from there.

use actors::refusal::Code;

use Code::{
    AlreadyClaimed, ChallengeAlreadyUsed, ChallengeExpired, ChallengeInvalid, Conflict, ContractWalletUnsupported,
    Forbidden, LoginFailed, NotFound, PaymentNotFound, PayoutWalletRequired, PowInvalid, ReviewAlreadyExists,
    ReviewNotEligible, SellerUnreachable, SignatureInvalid, ValidationFailed, WalletAlreadyLinked,
    WalletAlreadyRegistered, WalletNotRegistered, WalletWouldStrandProfile,
};

/// What answers a good request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Good {
    /// A named schema under `data`.
    One(&'static str),
    /// All of them under `data`.
    All(&'static str),
    /// A page of them, numbered.
    Page(&'static str),
    /// A page of reviews, numbered, and what all of them come to.
    Reviews,
    /// A page of a history.
    History(&'static str),
    /// A page of the ledger, or its sums.
    Ledger,
    /// A page or text, of these media types.
    Text(&'static [&'static str]),
    /// JSON without the envelope.
    Json,
    /// The table of codes: a page, or JSON.
    Codes,
}

/// What may stand in the query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Nothing.
    Nothing,
    /// What narrows the catalog, and a page.
    Filters,
    /// A page.
    Page,
    /// A part of a history; with `true`, by status too.
    History(bool),
    /// A part of the ledger, or its sums.
    Ledger,
    /// Whose keys, with a session.
    Agent,
}

/// One row.
#[derive(Clone, Debug)]
pub(super) struct Operation {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) tag: &'static str,
    pub(super) summary: &'static str,
    pub(super) status: u16,
    pub(super) good: Good,
    pub(super) asked: Asked,
    pub(super) input: Option<&'static str>,
    pub(super) refuses: Vec<Code>,
}

impl Operation {
    fn takes(self, input: &'static str) -> Self {
        Self { input: Some(input), ..self }
    }

    fn asked(self, asked: Asked) -> Self {
        Self { asked, ..self }
    }

    fn refuses(mut self, codes: &[Code]) -> Self {
        self.refuses.extend(codes);
        self
    }
}

/// The tags, in the order of the documentation, and what each is about.
pub(super) const TAGS: [(&str, &str); 6] = [
    ("identity", "Wallets become profiles; profiles have keys."),
    ("catalog", "What is offered, and how to offer something."),
    ("gateway", "Calls, payments, and what became of them."),
    ("reputation", "Reviews and scores."),
    ("sandbox", "Play money; in dev mode only."),
    ("documents", "What you are reading."),
];

const PROOF: [Code; 5] =
    [ChallengeInvalid, ChallengeExpired, ChallengeAlreadyUsed, SignatureInvalid, ContractWalletUnsupported];
const HTML: &str = "text/html; charset=utf-8";
const MARKDOWN: &str = "text/markdown; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";

/// All of them, in the order of the documentation.
pub(super) fn operations() -> Vec<Operation> {
    [identity(), catalog(), gateway(), webhooks(), reputation(), sandbox(), documents()].concat()
}

/// Builds the rows of a tag whose paths begin alike.
struct Rows {
    tag: &'static str,
}

impl Rows {
    fn row(&self, method: &'static str, path: &'static str, good: Good, summary: &'static str) -> Operation {
        let (tag, asked) = (self.tag, Asked::Nothing);
        Operation { method, path, tag, summary, status: 200, good, asked, input: None, refuses: Vec::new() }
    }

    fn get(&self, path: &'static str, good: Good, summary: &'static str) -> Operation {
        self.row("GET", path, good, summary)
    }

    fn post(&self, path: &'static str, status: u16, good: &'static str, summary: &'static str) -> Operation {
        Operation { status, ..self.row("POST", path, Good::One(good), summary) }
    }
}

fn identity() -> Vec<Operation> {
    let rows = Rows { tag: "identity" };
    vec![
        rows.get("/api/v1/health", Good::One("Health"), "Whether the gateway works."),
        rows.post(
            "/api/v1/auth/challenge",
            200,
            "Challenge",
            "A text for a wallet to sign; some purposes cost work too.",
        )
        .takes("ChallengeInput"),
        rows.post("/api/v1/register", 201, "Registered", "Makes a profile for a wallet; its key is told once.")
            .takes("RegisterInput")
            .refuses(&PROOF)
            .refuses(&[PowInvalid, WalletAlreadyRegistered]),
        rows.post("/api/v1/auth/recover", 201, "Registered", "A new key for the profile of a wallet; told once.")
            .takes("RecoverInput")
            .refuses(&PROOF)
            .refuses(&[PowInvalid, WalletNotRegistered, Code::ProfileSuspended, Conflict, Forbidden]),
        rows.post("/api/v1/auth/signup", 201, "SignedIn", "An account for a human, signed in at once.")
            .takes("SignUpInput")
            .refuses(&[Code::CsrfRequired, Conflict]),
        rows.post("/api/v1/auth/login", 200, "SignedIn", "Signs a human in.").takes("LogInInput").refuses(&[
            Code::CsrfRequired,
            LoginFailed,
            Code::ProfileSuspended,
        ]),
        rows.post("/api/v1/auth/logout", 200, "SignedOut", "Ends the session."),
        rows.get("/api/v1/me", Good::One("Me"), "Who the key or the session is."),
        rows.get("/api/v1/me/wallets", Good::All("Wallet"), "Your wallets."),
        rows.post("/api/v1/me/wallets", 201, "Wallet", "Links one more wallet, with the word of both.")
            .takes("WalletLinkInput")
            .refuses(&PROOF)
            .refuses(&[WalletAlreadyLinked, Conflict, Forbidden, NotFound]),
        rows.get("/api/v1/me/wallets/{id}", Good::One("Wallet"), "One of your wallets."),
        rows.row("PATCH", "/api/v1/me/wallets/{id}", Good::One("Wallet"), "Changes a wallet, with a wallet's word.")
            .takes("WalletChangeInput")
            .refuses(&PROOF)
            .refuses(&[WalletWouldStrandProfile, Conflict, Forbidden]),
        rows.row(
            "DELETE",
            "/api/v1/me/wallets/{id}",
            Good::One("Wallet"),
            "Takes a wallet out of use, with a wallet's word.",
        )
        .takes("WalletRemoveInput")
        .refuses(&PROOF)
        .refuses(&[WalletWouldStrandProfile, Conflict, Forbidden]),
        rows.get("/api/v1/api-keys", Good::All("Key"), "Your keys; never their text.")
            .asked(Asked::Agent)
            .refuses(&[NotFound]),
        rows.post("/api/v1/api-keys", 201, "NewKey", "Makes a key that may do no more than yours; told once.")
            .takes("KeyInput")
            .refuses(&[Conflict, NotFound]),
        rows.row("DELETE", "/api/v1/api-keys/{id}", Good::One("Key"), "Revokes a key.").asked(Asked::Agent),
        rows.get("/api/v1/agents/{id}", Good::One("Profile"), "An agent, as anybody may see it."),
        rows.post(
            "/api/v1/agents/{id}/claim",
            200,
            "Profile",
            "A human takes an agent, with the agent's wallet's word.",
        )
        .takes("WalletProof")
        .refuses(&PROOF)
        .refuses(&[AlreadyClaimed, Conflict, Forbidden]),
    ]
}

fn catalog() -> Vec<Operation> {
    let rows = Rows { tag: "catalog" };
    vec![
        rows.get("/api/v1/categories", Good::All("Category"), "The shelves."),
        rows.get("/api/v1/listings", Good::Page("Listing"), "What is offered now: searched, filtered, sorted.")
            .asked(Asked::Filters),
        rows.post("/api/v1/listings", 201, "OwnListing", "Offers something; the signing secret is told once.")
            .takes("ListingInput")
            .refuses(&[PowInvalid, PayoutWalletRequired]),
        rows.post("/api/v1/listings/challenge", 200, "ListingChallenge", "Work to do before `POST /listings`."),
        rows.get("/api/v1/listings/{id}", Good::One("Listing"), "A listing, by id or slug."),
        rows.row("PATCH", "/api/v1/listings/{id}", Good::One("OwnListing"), "Changes a listing of yours.")
            .takes("ListingChangeInput")
            .refuses(&[Forbidden, Conflict, PayoutWalletRequired]),
        rows.row(
            "DELETE",
            "/api/v1/listings/{id}",
            Good::One("RemovedListing"),
            "Deletes a draft, suspends what was offered.",
        )
        .refuses(&[Forbidden, Conflict]),
        rows.get("/api/v1/me/listings", Good::Page("Listing"), "Your listings, drafts and suspended ones too.")
            .asked(Asked::Page),
        rows.get("/api/v1/listings/{id}/endpoint", Good::One("Endpoint"), "How your listing is called; never the URL.")
            .refuses(&[Forbidden]),
        rows.row(
            "PUT",
            "/api/v1/listings/{id}/endpoint",
            Good::One("EndpointWithSecret"),
            "Changes how your listing is called.",
        )
        .takes("EndpointInput")
        .refuses(&[Forbidden, Conflict]),
        rows.post(
            "/api/v1/listings/{id}/endpoint/test",
            200,
            "EndpointTest",
            "Calls your endpoint as a buyer's call would.",
        )
        .takes("EndpointTestInput")
        .refuses(&[Forbidden, Conflict, SellerUnreachable]),
        rows.post(
            "/api/v1/listings/{id}/endpoint/rotate-secret",
            200,
            "EndpointWithSecret",
            "A new signing secret; told once.",
        )
        .takes("RotateInput")
        .refuses(&[Forbidden, Conflict]),
    ]
}

/// What a gateway call may be refused with besides what every route may.
const CALL: &[Code] = &[
    Code::InvalidJson,
    ValidationFailed,
    Code::UnsupportedMediaType,
    Code::PayloadTooLarge,
    NotFound,
    Code::Unauthenticated,
    Code::ScopeRequired,
    Code::ProfileSuspended,
    Code::ListingUnavailable,
    Code::SelfCallForbidden,
    Code::Forbidden,
    Code::PaymentRequired,
    Code::PaymentRouteMinimumNotMet,
    Code::PaymentRouteUnavailable,
    Code::PaymentFailed,
    Code::PaymentUnderpaid,
    Code::PaymentExpired,
    PaymentNotFound,
    Code::PaymentRequestMismatch,
    Code::PaymentInProgress,
    Code::PaymentClosed,
    Code::PaymentProviderUnavailable,
    Code::IdempotencyKeyReused,
    Code::TooManyOpenQuotes,
    Code::PriceAboveMaximum,
    Code::SpendLimitExceeded,
    Code::ResultNotKept,
    Code::SellerBusy,
    Code::SellerCircuitOpen,
    Code::SellerPaused,
    SellerUnreachable,
    Code::SellerError,
    Code::SellerRedirected,
    Code::SellerInvalidResponse,
    Code::SellerTimeout,
];

fn gateway() -> Vec<Operation> {
    let rows = Rows { tag: "gateway" };
    vec![
        rows.post(
            "/api/v1/gateway/{id}",
            200,
            "Receipt",
            "Calls a listing, by id or slug: a quote first, the answer once paid.",
        )
        .takes("CallBody")
        .refuses(CALL),
        rows.get(
            "/api/v1/gateway-requests",
            Good::History("GatewayRequest"),
            "Your calls, as buyer and seller, newest first.",
        )
        .asked(Asked::History(true)),
        rows.get(
            "/api/v1/gateway-requests/{id}",
            Good::One("GatewayRequestDetail"),
            "One call: its attempts, its result.",
        ),
        rows.get("/api/v1/ledger", Good::Ledger, "Your money, entry by entry, or in sum.").asked(Asked::Ledger),
        rows.get("/api/v1/payments/{id}", Good::One("Payment"), "Where a payment of yours stands.")
            .refuses(&[PaymentNotFound]),
    ]
}

fn reputation() -> Vec<Operation> {
    let rows = Rows { tag: "reputation" };
    vec![
        rows.get("/api/v1/reviews/{id}", Good::Reviews, "What buyers think of a listing, by id or slug.")
            .asked(Asked::Page),
        rows.post("/api/v1/reviews/{id}", 201, "Review", "Reviews a listing of which you bought a call lately.")
            .takes("ReviewInput")
            .refuses(&[ReviewNotEligible, ReviewAlreadyExists]),
        rows.get("/api/v1/agents/{id}/score", Good::One("Score"), "How far an agent can be trusted, and why."),
    ]
}

fn sandbox() -> Vec<Operation> {
    let rows = Rows { tag: "sandbox" };
    vec![
        rows.get("/api/v1/sandbox/payments/{id}", Good::One("SandboxPayment"), "What the sandbox knows of a payment.")
            .refuses(&[PaymentNotFound]),
        rows.post("/api/v1/sandbox/payments/{id}/pay", 200, "SandboxPayment", "Pays a quote with play money.")
            .takes("SandboxPayInput")
            .refuses(&[PaymentNotFound]),
    ]
}

fn webhooks() -> Vec<Operation> {
    let rows = Rows { tag: "gateway" };
    vec![
        rows.post("/api/v1/webhooks/relay", 200, "Received", "A notice of Relay's, which it signs; a reason to look.")
            .takes("RelayNotice")
            .refuses(&[Forbidden, NotFound, Code::PaymentProviderUnavailable]),
    ]
}

fn documents() -> Vec<Operation> {
    const EITHER: Good = Good::Text(&[MARKDOWN, HTML]);
    let rows = Rows { tag: "documents" };
    vec![
        rows.get("/openapi.json", Good::Json, "This document."),
        rows.get("/api/openapi.json", Good::Json, "This document."),
        rows.get("/docs", Good::Text(&[HTML]), "The documentation, as one page."),
        rows.get("/docs/errors", Good::Codes, "Every code: a page, or with `Accept: application/json` its table."),
        rows.get("/docs/api-reference.txt", Good::Text(&[PLAIN]), "Every route in a line."),
        rows.get(
            "/docs/seller-integration.txt",
            Good::Text(&[PLAIN]),
            "What a seller must know: the request, the signature, the rules.",
        ),
        rows.get("/llms.txt", Good::Text(&[PLAIN]), "Where an agent finds what."),
        rows.get("/SKILL.md", Good::Text(&[MARKDOWN]), "How an agent registers, finds, pays and calls."),
        rows.get("/agent-skill", EITHER, "The same, as a page for who asks for HTML."),
        rows.get("/.well-known/agent-protocol.json", Good::Json, "What this service is, for programs."),
        rows.get("/.well-known/x402", Good::Json, "How calls are paid over x402, and the newest that can be bought."),
        rows.get("/seller-onboarding", EITHER, "How a seller gets to a listing that answers."),
        rows.get("/terms", Good::Text(&[HTML]), "The operator's terms."),
    ]
}
