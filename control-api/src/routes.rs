//! Every route on one screen. The table is what is served: the word beside a method says who may ask, and is enforced
//! before the handler sees anything.

use actix_web::{HttpRequest, guard, web};
use actors::refusal::Code;

use crate::{catalog, docs, extract, history, identity, ops, sandbox, trust, webhooks};

/// Who may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anybody; counted by address.
    Open,
    /// Anybody who wants to be let in; counted by address, and strictly.
    Auth,
    /// Anybody; with a key, more is shown.
    Optional,
    /// Any key.
    Key,
    /// A key that may read.
    Read,
    /// A key that may write.
    Write,
    /// Any key, or a human who is signed in.
    Either,
    /// A key that may read, or a human who is signed in.
    ReadEither,
    /// A key that may write, or a human who is signed in.
    WriteEither,
    /// A human who is signed in.
    Session,
}

impl Access {
    /// Whether it is refused without a key; where a session does as well, without either.
    #[must_use]
    pub fn needs_key(self) -> bool {
        matches!(self, Self::Key | Self::Read | Self::Write | Self::Either | Self::ReadEither | Self::WriteEither)
    }

    /// Whether anybody may ask.
    #[must_use]
    pub fn is_open(self) -> bool {
        matches!(self, Self::Open | Self::Auth | Self::Optional)
    }
}

/// One method of one path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The method.
    pub method: &'static str,
    /// The path; a part in braces stands for any.
    pub path: &'static str,
    /// Who may ask.
    pub access: Access,
}

macro_rules! routes {
    ($($path:literal { $($method:ident $access:ident => $($handler:ident)::+),+ $(,)? })+) => {
        /// All routes, in the order of the documentation.
        pub const ROUTES: &[Route] = &[
            $($(Route { method: stringify!($method), path: $path, access: Access::$access }),+),+
        ];

        /// Puts the routes into an application.
        pub(crate) fn configure(config: &mut web::ServiceConfig) {
            $(
                let allow = concat!($(stringify!($method), ", "),+);
                let resource = web::resource($path)
                    $(.route(web::route().guard(method_guard(stringify!($method)))
                        .to(bind!($access, $($handler)::+))))+
                    .default_service(web::to(move |request: HttpRequest| async move {
                        extract::refuse(&request, Code::MethodNotAllowed, Some(allow.trim_end_matches(", ")))
                    }));
                config.service(resource);
            )+
            config.default_service(web::to(|request: HttpRequest| async move {
                extract::refuse(&request, Code::NotFound, None)
            }));
        }
    };
}

macro_rules! bind {
    (Open, $($handler:ident)::+) => { bind!(@open Open, $($handler)::+) };
    (Auth, $($handler:ident)::+) => { bind!(@open Auth, $($handler)::+) };
    (Optional, $($handler:ident)::+) => { bind!(@open Optional, $($handler)::+) };
    (Session, $($handler:ident)::+) => {
        |request: HttpRequest, payload: web::Payload| {
            extract::signed_in(request, payload, Access::Session, $($handler)::+)
        }
    };
    (Either, $($handler:ident)::+) => { bind!(@either Either, $($handler)::+) };
    (ReadEither, $($handler:ident)::+) => { bind!(@either ReadEither, $($handler)::+) };
    (WriteEither, $($handler:ident)::+) => { bind!(@either WriteEither, $($handler)::+) };
    (@either $access:ident, $($handler:ident)::+) => {
        |request: HttpRequest, payload: web::Payload| {
            extract::either(request, payload, Access::$access, $($handler)::+)
        }
    };
    (@open $access:ident, $($handler:ident)::+) => {
        |request: HttpRequest, payload: web::Payload| {
            extract::open(request, payload, Access::$access, $($handler)::+)
        }
    };
    ($access:ident, $($handler:ident)::+) => {
        |request: HttpRequest, payload: web::Payload| {
            extract::keyed(request, payload, Access::$access, $($handler)::+)
        }
    };
}

routes! {
    // identity
    "/api/v1/health" { GET Open => ops::health }
    "/api/v1/auth/challenge" { POST Auth => identity::challenge::issue }
    "/api/v1/register" { POST Auth => identity::register::register }
    "/api/v1/auth/recover" { POST Auth => identity::recover::recover }
    "/api/v1/auth/signup" { POST Auth => identity::humans::sign_up }
    "/api/v1/auth/login" { POST Auth => identity::humans::log_in }
    "/api/v1/auth/logout" { POST Session => identity::humans::log_out }
    "/api/v1/me" { GET Either => identity::me::show }
    "/api/v1/me/wallets" { GET Read => identity::wallets::list_all, POST Write => identity::wallets::link }
    "/api/v1/me/wallets/{id}" {
        GET Read => identity::wallets::show,
        PATCH Write => identity::wallets::change,
        DELETE Write => identity::wallets::remove,
    }
    "/api/v1/api-keys" {
        GET ReadEither => identity::api_keys::list_all,
        POST WriteEither => identity::api_keys::create,
    }
    "/api/v1/api-keys/{id}" { DELETE WriteEither => identity::api_keys::revoke }
    "/api/v1/agents/{id}" { GET Open => identity::me::show_public }
    "/api/v1/agents/{id}/claim" { POST Session => identity::claim::claim }
    // catalog
    "/api/v1/categories" { GET Open => catalog::categories::list_all }
    "/api/v1/listings" { GET Open => catalog::browse::list, POST Write => catalog::listings::create }
    "/api/v1/listings/challenge" { POST Write => catalog::listings::challenge }
    "/api/v1/listings/{id}" {
        GET Optional => catalog::listings::show,
        PATCH Write => catalog::listings::change,
        DELETE Write => catalog::listings::remove,
    }
    "/api/v1/me/listings" { GET Read => catalog::listings::list_own }
    "/api/v1/listings/{id}/endpoint" { GET Read => catalog::endpoints::show, PUT Write => catalog::endpoints::put }
    "/api/v1/listings/{id}/endpoint/test" { POST Write => catalog::endpoint_test::run }
    "/api/v1/listings/{id}/endpoint/rotate-secret" { POST Write => catalog::endpoints::rotate_secret }
    // history
    "/api/v1/gateway-requests" { GET Read => history::gateway_requests::list }
    "/api/v1/gateway-requests/{id}" { GET Read => history::gateway_requests::show }
    "/api/v1/ledger" { GET Read => history::ledger::list }
    "/api/v1/payments/{id}" { GET Key => history::payments::show }
    // trust
    "/api/v1/reviews/{id}" { GET Open => trust::reviews::list, POST Write => trust::reviews::create }
    "/api/v1/agents/{id}/score" { GET Open => trust::scores::show }
    // the sandbox rail's own side, in dev mode
    "/api/v1/sandbox/payments/{id}" { GET Key => sandbox::show }
    "/api/v1/sandbox/payments/{id}/pay" { POST Key => sandbox::pay }
    // what payment providers tell
    "/api/v1/webhooks/relay" { POST Open => webhooks::relay }
    // what people and agents read
    "/openapi.json" { GET Open => docs::show_openapi }
    "/api/openapi.json" { GET Open => docs::show_openapi }
    "/docs" { GET Open => docs::show_docs }
    "/docs/errors" { GET Open => docs::errors }
    "/docs/api-reference.txt" { GET Open => docs::show_api_reference }
    "/docs/seller-integration.txt" { GET Open => docs::show_integration }
    "/llms.txt" { GET Open => docs::show_llms }
    "/SKILL.md" { GET Open => docs::show_skill }
    "/agent-skill" { GET Open => docs::show_agent_skill }
    "/.well-known/agent-protocol.json" { GET Open => docs::show_agent_protocol }
    "/.well-known/x402" { GET Open => docs::show_x402 }
    "/seller-onboarding" { GET Open => docs::show_onboarding }
    "/terms" { GET Open => docs::show_terms }
}

/// A `GET` route answers `HEAD` too, without the body.
fn method_guard(method: &'static str) -> impl guard::Guard {
    guard::fn_guard(move |context| {
        let asked = context.head().method.as_str();
        asked == method || (asked == "HEAD" && method == "GET")
    })
}
