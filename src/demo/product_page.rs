//! What does the product page answer? The bookstore's page, its sign-in, and its API.

use bytes::Bytes;
use http::header::{COOKIE, HeaderMap, HeaderName, HeaderValue, SET_COOKIE};
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};

use super::answer::{self, Answer, escape};
use super::inside::Inside;

/// What the page is about.
const TITLE: &str = "The Comedy of Errors";

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;margin:0;color:#222;background:#fafafa}\
header{background:#2b3a55;color:#fff;padding:.8rem 1.5rem;display:flex;justify-content:space-between}\
header form,header a{color:#fff}main{max-width:60rem;margin:1.5rem auto;padding:0 1.5rem}\
section{display:grid;grid-template-columns:1fr 1fr;gap:2rem}blockquote{margin:0 0 1.5rem}\
.black{color:#111}.red{color:#c00}dt{font-weight:600}small{color:#666}";

/// Serves one request; `body` is its whole body.
pub(super) async fn serve(request: &Request<()>, body: &Bytes, inside: &Inside) -> Answer {
    let (path, method) = (request.uri().path(), request.method());
    match path {
        "/productpage" => page(request.headers(), inside).await,
        "/login" if method == Method::POST => sign_in(body),
        "/login" => answer::text(StatusCode::METHOD_NOT_ALLOWED, "sign in with POST\n"),
        "/logout" => signed_out(),
        "/health" => answer::text(StatusCode::OK, "productpage is healthy\n"),
        "/static/bookinfo.css" => answer::css(STYLE),
        "/api/v1/products" => answer::json(StatusCode::OK, &json!([product()])),
        _ => match path.strip_prefix("/api/v1/products/0") {
            Some(rest) => api(rest, request.headers(), inside).await,
            None => answer::not_found(),
        },
    }
}

/// The visitor's headers as they are handed on: the signed-in user becomes `end-user`.
fn visitor(headers: &HeaderMap) -> HeaderMap {
    let mut handed_on = headers.clone();
    if let Some(user) = user(headers).and_then(|name| HeaderValue::from_str(name).ok()) {
        handed_on.insert(HeaderName::from_static("end-user"), user);
    }
    handed_on
}

fn product() -> Value {
    json!({ "id": 0, "title": TITLE, "descriptionHtml": "Two pairs of twins, separated at sea, in one town for a day." })
}

async fn api(rest: &str, headers: &HeaderMap, inside: &Inside) -> Answer {
    let (service, path) = match rest {
        "" => ("details", "/details/0"),
        "/reviews" => ("reviews", "/reviews/0"),
        "/ratings" => ("ratings", "/ratings/0"),
        _ => return answer::not_found(),
    };
    match inside.get(service, path, &visitor(headers)).await {
        Some(document) => answer::json(StatusCode::OK, &document),
        None => answer::json(
            StatusCode::SERVICE_UNAVAILABLE,
            &json!({ "error": format!("{service} is not available now") }),
        ),
    }
}

async fn page(headers: &HeaderMap, inside: &Inside) -> Answer {
    let visitor = visitor(headers);
    let (details, reviews) =
        tokio::join!(inside.get("details", "/details/0", &visitor), inside.get("reviews", "/reviews/0", &visitor));
    answer::html(format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>Simple Bookstore App</title>\n\
         <link rel=\"stylesheet\" href=\"/static/bookinfo.css\">\n</head>\n<body>\n\
         <header><b>BookInfo Sample</b>{}</header>\n<main>\n<h1>{TITLE}</h1>\n<section>\n<div>\n{}</div>\n<div>\n{}</div>\n\
         </section>\n</main>\n</body>\n</html>\n",
        who(headers),
        details_part(details.as_ref()),
        reviews_part(reviews.as_ref()),
    ))
}

fn who(headers: &HeaderMap) -> String {
    match user(headers) {
        Some(name) => format!("<span>{} (<a href=\"/logout\">sign out</a>)</span>", escape(name)),
        None => "<form method=\"post\" action=\"/login\"><input name=\"username\" placeholder=\"user, e.g. jason\"> \
                 <button>Sign in</button></form>"
            .into(),
    }
}

fn details_part(details: Option<&Value>) -> String {
    let Some(Value::Object(fields)) = details else {
        return "<h2>Error fetching product details</h2>\n<p>Details are not available for this book now.</p>\n".into();
    };
    let lines: String = fields
        .iter()
        .filter(|(name, _)| *name != "id")
        .map(|(name, value)| format!("<dt>{}</dt><dd>{}</dd>\n", escape(name), escape(&plain(value))))
        .collect();
    format!("<h2>Book Details</h2>\n<dl>\n{lines}</dl>\n")
}

fn reviews_part(answer: Option<&Value>) -> String {
    let reviews = answer.and_then(|answer| answer.get("reviews")).and_then(Value::as_array);
    let (Some(answer), Some(reviews)) = (answer, reviews) else {
        return "<h2>Error fetching product reviews</h2>\n<p>Reviews are not available for this book now.</p>\n".into();
    };
    let quotes: String = reviews.iter().map(review).collect();
    let served_by = escape(&field(answer, "podname"));
    format!("<h2>Book Reviews</h2>\n{quotes}<small>Reviews served by: {served_by}</small>\n")
}

fn review(review: &Value) -> String {
    format!(
        "<blockquote>{}<br><small>{}</small>{}</blockquote>\n",
        escape(&field(review, "text")),
        escape(&field(review, "reviewer")),
        review.get("rating").map(rating).unwrap_or_default(),
    )
}

fn rating(rating: &Value) -> String {
    let Some(stars) = rating.get("stars").and_then(Value::as_u64) else {
        return "<br><small>Ratings are not available now.</small>".into();
    };
    let full = usize::try_from(stars.min(5)).unwrap_or_default();
    let color = if field(rating, "color") == "red" { "red" } else { "black" };
    format!(
        "<br><span class=\"{color}\" title=\"{full} of 5, {color} stars\">{}{}</span>",
        "\u{2605}".repeat(full),
        "\u{2606}".repeat(5 - full)
    )
}

fn field(document: &Value, name: &str) -> String {
    document.get(name).map(plain).unwrap_or_default()
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The user that the session cookie names.
fn user(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(COOKIE).into_iter().filter_map(|line| line.to_str().ok());
    cookies
        .flat_map(|line| line.split(';'))
        .filter_map(|cookie| cookie.trim().strip_prefix("session="))
        .find(|name| is_name(name))
}

/// A form with `username`; any password will do, as in the tutorial.
fn sign_in(body: &Bytes) -> Answer {
    let form = std::str::from_utf8(body).unwrap_or_default();
    let name = form.split('&').find_map(|field| field.strip_prefix("username=")).filter(|name| is_name(name));
    let Some(cookie) = name.and_then(|name| HeaderValue::from_str(&session(name)).ok()) else {
        return answer::text(StatusCode::BAD_REQUEST, "a user name has 1 to 32 letters, digits, '-', '_' or '.'\n");
    };
    answer::with_header(answer::see("/productpage"), SET_COOKIE, cookie)
}

fn signed_out() -> Answer {
    let cookie = HeaderValue::from_static("session=; Path=/; Max-Age=0");
    answer::with_header(answer::see("/productpage"), SET_COOKIE, cookie)
}

fn session(name: &str) -> String {
    format!("session={name}; Path=/; HttpOnly; SameSite=Lax")
}

fn is_name(name: &str) -> bool {
    (1..=32).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_session_cookie_names_the_user() {
        for (cookie, name) in [
            ("session=jason", Some("jason")),
            ("theme=dark; session=jason", Some("jason")),
            ("session=", None),
            ("session=<script>", None),
            ("other=jason", None),
        ] {
            let headers = HeaderMap::from_iter([(COOKIE, HeaderValue::from_static(cookie))]);
            assert_eq!(user(&headers), name, "{cookie}");
        }
    }

    #[test]
    fn signing_in_needs_a_name() {
        for (form, status) in [
            ("username=jason&passwd=x", StatusCode::FOUND),
            ("passwd=x&username=jason", StatusCode::FOUND),
            ("username=", StatusCode::BAD_REQUEST),
            ("username=a%0d%0ab", StatusCode::BAD_REQUEST),
            ("", StatusCode::BAD_REQUEST),
        ] {
            assert_eq!(sign_in(&Bytes::from_static(form.as_bytes())).status(), status, "{form}");
        }
    }

    #[test]
    fn what_other_services_say_is_escaped() {
        let answer = json!({ "podname": "<p>", "reviews": [
            { "reviewer": "a&b", "text": "<script>", "rating": { "stars": 9, "color": "\"red" } },
        ] });
        let part = reviews_part(Some(&answer));
        assert!(part.contains("&lt;script&gt;") && part.contains("a&amp;b") && part.contains("&lt;p&gt;"), "{part}");
        assert!(part.contains("5 of 5, black stars"), "{part}");
        assert!(reviews_part(None).contains("Error fetching product reviews"));
    }
}
