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
