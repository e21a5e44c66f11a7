//! The console: one live page for operators. Served from the binary, so it works without a network beyond the server; it holds
//! no data itself and reads `/petrel/v1/overview` like any other client.

use axum::Router;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

/// Nothing is loaded from elsewhere, no inline script runs, no other page may frame this one.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     frame-ancestors 'none'; base-uri 'none'; form-action 'self'";

/// Paths of the page's files. They hold no data and are open to all; what they fetch is not.
pub const OPEN_PATHS: [&str; 4] = ["/", "/console/style.css", "/console/script.js", "/console/petrel.svg"];

/// The page and its files.
pub fn router() -> Router {
    let file = |kind: &'static str, text: &'static str| get(move || async move { serve(kind, text) });
    Router::new()
        .route("/", file("text/html; charset=utf-8", include_str!("page.html")))
        .route("/console/style.css", file("text/css; charset=utf-8", include_str!("style.css")))
        .route("/console/script.js", file("text/javascript; charset=utf-8", include_str!("script.js")))
        .route("/console/petrel.svg", file("image/svg+xml", include_str!("petrel.svg")))
}

fn serve(kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        // A new version of the server brings a new page at once.
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, text).into_response()
}

#[cfg(test)]
mod tests {
    const PAGE: &str = include_str!("page.html");
    const SCRIPT: &str = include_str!("script.js");

    #[test]
    fn nothing_from_outside_can_become_markup_or_code() {
        for forbidden in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function("] {
            assert!(!SCRIPT.contains(forbidden), "script.js uses {forbidden}; build elements and give them text");
        }
        for forbidden in ["style=", "onclick=", "<style", "<script>", "http://", "https://"] {
            assert!(!PAGE.contains(forbidden), "page.html has {forbidden}, which its content security policy refuses");
        }
    }

    #[test]
    fn every_part_that_the_script_fills_is_on_the_page() {
        let named = SCRIPT.match_indices("byId('").chain(SCRIPT.match_indices("fill('"));
        let ids: Vec<&str> = named.filter_map(|(at, call)| SCRIPT[at + call.len()..].split('\'').next()).collect();
        assert!(ids.len() > 10, "{ids:?}");
        for id in ids {
            assert!(PAGE.contains(&format!("id=\"{id}\"")), "page.html has no `{id}`");
        }
    }
}
