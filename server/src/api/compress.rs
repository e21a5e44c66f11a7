//! Answers in the compression that the client asks for: zstd, gzip or deflate. Small ones go as they are, because they fit into
//! one packet anyway, and nothing is compressed that nobody asked for.

use std::io::Write as _;

use axum::body::{Body, HttpBody as _, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;

/// Smaller answers are not worth it: they fit into one packet.
const BYTES_MIN: u64 = 1400;
/// Larger ones are compressed on a thread that may block: about a millisecond of work.
const INLINE_BYTES_MAX: u64 = 128 << 10;

/// The compressions, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Zstd,
    Gzip,
    Deflate,
}

impl Coding {
    const ALL: [Coding; 3] = [Coding::Zstd, Coding::Gzip, Coding::Deflate];

    fn word(self) -> &'static str {
        match self {
            Coding::Zstd => "zstd",
            Coding::Gzip => "gzip",
            Coding::Deflate => "deflate",
        }
    }

    /// At the fastest level: JSON shrinks to a tenth already, and who waits for a page waits for both.
    fn compress(self, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
        let fast = flate2::Compression::fast();
        match self {
            Coding::Zstd => zstd::bulk::compress(bytes, 1),
            Coding::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), fast);
                encoder.write_all(bytes)?;
                encoder.finish()
            }
            Coding::Deflate => {
                let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), fast);
                encoder.write_all(bytes)?;
                encoder.finish()
            }
        }
    }
}

/// A layer: compresses the answer of what is below it.
pub async fn compress(request: Request, next: Next) -> Response {
    let coding = wanted(request.headers());
    let response = next.run(request).await;
    let is_plain = !response.headers().contains_key(header::CONTENT_ENCODING);
    // What is streamed has no known size and is left alone.
    let size = response.body().size_hint().exact();
    match (coding, size) {
        (Some(coding), Some(size)) if is_plain && size >= BYTES_MIN => compressed(coding, size, response).await,
        _ => response,
    }
}

async fn compressed(coding: Coding, size: u64, response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    // A body of known size is in memory already.
    let Ok(bytes) = to_bytes(body, usize::MAX).await else { return Response::from_parts(parts, Body::empty()) };
    let small = if size <= INLINE_BYTES_MAX {
        coding.compress(&bytes)
    } else {
        let all = bytes.clone();
        let done = tokio::task::spawn_blocking(move || coding.compress(&all)).await;
        done.unwrap_or_else(|error| Err(std::io::Error::other(error)))
    };
    // Compressing into memory does not fail; if it did, the plain answer is right as well.
    let Ok(small) = small else { return Response::from_parts(parts, Body::from(bytes)) };
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding.word()));
    parts.headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    Response::from_parts(parts, Body::from(small))
}

/// The compression that the client likes most; of several, the best of ours.
fn wanted(headers: &HeaderMap) -> Option<Coding> {
    let texts = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let mut best: Option<(f32, Coding)> = None;
    for item in texts.flat_map(|text| text.split(',')) {
        let (word, parameters) = item.split_once(';').unwrap_or((item, ""));
        let weight = parameters.trim().strip_prefix("q=").map_or(1.0, |weight| weight.trim().parse().unwrap_or(0.0));
        let Some(coding) = Coding::ALL.into_iter().find(|coding| coding.word().eq_ignore_ascii_case(word.trim()))
        else {
            continue;
        };
        let is_better = |(known_weight, known): (f32, Coding)| {
            weight > known_weight || (weight == known_weight && (coding as u8) < known as u8)
        };
        if weight > 0.0 && best.is_none_or(is_better) {
            best = Some((weight, coding));
        }
    }
    best.map(|(_, coding)| coding)
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::get;
    use tower::ServiceExt;

    use super::*;
    use crate::ingest::body::decompress;

    #[test]
    fn the_client_chooses() {
        let asked = |text: &'static str| {
            wanted(&HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_static(text))]))
        };
        assert_eq!(asked("gzip"), Some(Coding::Gzip));
        assert_eq!(asked("gzip, deflate, br, zstd"), Some(Coding::Zstd));
        assert_eq!(asked("zstd;q=0, gzip;q=0.2, deflate;q=0.5"), Some(Coding::Deflate));
        assert_eq!(asked("identity, *"), None);
        assert_eq!(asked("gzip;q=much"), None);
    }

    #[tokio::test]
    async fn large_answers_come_back_the_same_and_small_ones_stay_plain() {
        let large = "{\"metric\":1}".repeat(30_000);
        let body = large.clone();
        let router = Router::new()
            .route("/large", get(|| async { body }))
            .route("/small", get(|| async { "small" }))
            .layer(axum::middleware::from_fn(compress));
        let ask = |path: &'static str, coding: &'static str| {
            let request = Request::get(path).header(header::ACCEPT_ENCODING, coding).body(Body::empty()).unwrap();
            router.clone().oneshot(request)
        };
        for coding in ["gzip", "zstd"] {
            let answer = ask("/large", coding).await.unwrap();
            assert_eq!(answer.headers()[header::CONTENT_ENCODING], coding);
            assert_eq!(answer.headers()[header::VARY], "Accept-Encoding");
            let bytes = to_bytes(answer.into_body(), 1 << 20).await.unwrap();
            assert!(bytes.len() < large.len() / 10);
            assert_eq!(*decompress(coding, &bytes, 1 << 20).unwrap(), *large.as_bytes());
        }
        for (path, coding) in [("/small", "gzip"), ("/large", "br"), ("/large", "")] {
            assert!(!ask(path, coding).await.unwrap().headers().contains_key(header::CONTENT_ENCODING));
        }
    }
}
