//! Bodies that come too slowly: a layer around all paths that ends a request whose body is not there in time. Without it, a caller
//! that sends a byte a minute would hold its place and its memory for ever. The answer's body may take as long as it likes.

use std::error::Error as StdError;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hyper::body::{Frame, SizeHint};
use tokio::time::{Sleep, sleep};

use crate::telemetry;

/// The body is not there in time.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("request body did not arrive within {0:?} (limit write.body_timeout)")]
pub struct LateBodyError(Duration);

/// Whether an error of a body is, or comes from, a [`LateBodyError`].
pub fn is_late(error: &(dyn StdError + 'static)) -> bool {
    std::iter::successors(Some(error), |&error| error.source()).any(<dyn StdError>::is::<LateBodyError>)
}

/// A layer: answers 408 where the request's body takes longer than `patience`, whatever the handler made of it; but for a 503, which
/// the doors of samples say.
pub async fn limit(State(patience): State<Duration>, request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let is_late = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&is_late);
    let request = request.map(|inner| {
        // The time runs from here, and the timer is registered only if the body is not here already.
        Body::new(Timed { inner, patience, deadline: Box::pin(sleep(patience)), told })
    });
    let response = next.run(request).await;
    let is_told = matches!(response.status(), StatusCode::REQUEST_TIMEOUT | StatusCode::SERVICE_UNAVAILABLE);
    if is_late.load(Ordering::Relaxed) && !is_told {
        telemetry::REQUESTS_DENIED.with_label_values(&["body_timeout"]).inc();
        return (StatusCode::REQUEST_TIMEOUT, format!("{}\n", LateBodyError(patience))).into_response();
    }
    response
}

/// A body that fails at its deadline.
struct Timed {
    inner: Body,
    patience: Duration,
    deadline: Pin<Box<Sleep>>,
    told: Arc<AtomicBool>,
}

impl HttpBody for Timed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        if self.deadline.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.told.store(true, Ordering::Relaxed);
        Poll::Ready(Some(Err(axum::Error::new(LateBodyError(self.patience)))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::middleware::from_fn_with_state;
    use axum::routing::post;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::interval;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::api::listen;

    const PATIENCE: Duration = Duration::from_millis(300);

    /// What a server that has this much patience answers to a head and then one byte of a body after the other, until it hangs up or
    /// the body of 100 bytes is there.
    async fn answer_to_a_trickle(path: &str, between: Duration) -> String {
        let router = Router::new()
            .route("/bytes", post(|body: Bytes| async move { format!("{} came", body.len()) }))
            .route("/deaf", post(|| async { "fine" }));
        let router = router.layer(from_fn_with_state(PATIENCE, limit));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        let cancel = CancellationToken::new();
        let server = tokio::spawn(listen::serve(listener, None, router, cancel.clone()));
        let (mut read, mut write) = TcpStream::connect(to).await.unwrap().into_split();
        let head = format!("POST {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 100\r\n\r\n");
        write.write_all(head.as_bytes()).await.unwrap();
        let trickle = tokio::spawn(async move {
            let mut ticks = interval(between.max(Duration::from_millis(1)));
            for _ in 0..100 {
                ticks.tick().await;
                if write.write_all(b"x").await.is_err() {
                    break;
                }
            }
            write
        });
        let mut answer = Vec::new();
        let read = tokio::time::timeout(20 * PATIENCE, read.read_to_end(&mut answer)).await;
        assert!(read.is_ok(), "the server did not hang up: {}", String::from_utf8_lossy(&answer));
        trickle.abort();
        cancel.cancel();
        server.await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[tokio::test]
    async fn a_body_that_trickles_in_is_ended_at_the_deadline() {
        let slow = Duration::from_millis(100);
        let answer = answer_to_a_trickle("/bytes", slow).await;
        assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("limit write.body_timeout"), "{answer}");
        let answer = answer_to_a_trickle("/bytes", Duration::ZERO).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("100 came"), "{answer}");
        let answer = answer_to_a_trickle("/deaf", slow).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "who does not read the body does not wait for it: {answer}");
    }

    #[test]
    fn a_late_body_is_known_by_its_error_however_wrapped() {
        let late = axum::Error::new(axum::Error::new(LateBodyError(PATIENCE)));
        assert!(is_late(&late) && !is_late(&axum::Error::new(std::fmt::Error)));
    }
}
