//! Pages of other sites may read the Prometheus API where every request shows a token, as they may with Prometheus: the page
//! must know the token, the browser adds nothing. Without tokens the caller's machine is all that is trusted, and other sites
//! stay out (see `auth`).

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::auth::Policy;

/// What Prometheus sends, too.
const HEADERS: [(HeaderName, &str); 4] = [
    (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
    (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, OPTIONS"),
    (header::ACCESS_CONTROL_ALLOW_HEADERS, "Accept, Authorization, Content-Type, Origin"),
    (header::ACCESS_CONTROL_EXPOSE_HEADERS, "Date"),
];

/// A layer around the check of tokens: answers a browser's question before a request, which never carries a token, and marks
/// the answers of the Prometheus API.
pub async fn share(State(policy): State<Arc<Policy>>, request: Request, next: Next) -> Response {
    let is_open = matches!(*policy, Policy::Tokens(_))
        && request.uri().path().starts_with("/api/v1/")
        && request.headers().contains_key(header::ORIGIN);
    if !is_open {
        return next.run(request).await;
    }
    let mut response = if request.method() == Method::OPTIONS {
        StatusCode::NO_CONTENT.into_response()
    } else {
        next.run(request).await
    };
    mark(response.headers_mut());
    response
}

fn mark(headers: &mut HeaderMap) {
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::middleware::from_fn_with_state;
    use axum::routing::get;
    use tower::ServiceExt;

    use super::super::auth::{self, Tokens};
    use super::*;

    async fn ask(policy: Policy, method: Method, path: &str) -> (StatusCode, bool) {
        let policy = Arc::new(policy);
        let router = Router::new()
            .route("/api/v1/query", get(|| async { "answer" }))
            .route("/petrel/v1/hosts", get(|| async { "hosts" }))
            .layer(from_fn_with_state(Arc::clone(&policy), auth::check))
            .layer(from_fn_with_state(policy, share));
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "localhost")
            .header(header::ORIGIN, "https://grafana.example");
        let answer = router.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        (answer.status(), answer.headers().contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN))
    }

    #[tokio::test]
    async fn other_sites_come_in_only_where_tokens_are_asked_for() {
        let tokens = || Policy::Tokens(Tokens::default());
        assert_eq!(ask(tokens(), Method::OPTIONS, "/api/v1/query").await, (StatusCode::NO_CONTENT, true));
        // Without a token there is still no answer, but the page may read why.
        assert_eq!(ask(tokens(), Method::GET, "/api/v1/query").await, (StatusCode::UNAUTHORIZED, true));
        assert_eq!(ask(tokens(), Method::OPTIONS, "/petrel/v1/hosts").await, (StatusCode::UNAUTHORIZED, false));
        assert_eq!(ask(Policy::Loopback, Method::OPTIONS, "/api/v1/query").await, (StatusCode::FORBIDDEN, false));
        assert_eq!(ask(Policy::Loopback, Method::GET, "/api/v1/query").await, (StatusCode::FORBIDDEN, false));
    }
}
