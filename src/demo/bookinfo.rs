//! What do bookinfo's inner services answer? Details, reviews in three versions, and ratings.

use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use super::answer::{Answer, json, not_found};
use super::inside::Inside;

/// A version of reviews.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// Without stars.
    V1,
    /// Black stars.
    V2,
    /// Red stars.
    V3,
}

impl Version {
    /// Its label `version`.
    pub(super) fn label(self) -> &'static str {
        match self {
            Version::V1 => "v1",
            Version::V2 => "v2",
            Version::V3 => "v3",
        }
    }

    /// The colour of its stars; v1 has none.
    fn stars(self) -> Option<&'static str> {
        match self {
            Version::V1 => None,
            Version::V2 => Some("black"),
            Version::V3 => Some("red"),
        }
    }
}

/// `GET /details/ID`.
pub(super) fn details(path: &str) -> Answer {
    let Some(id) = number_after(path, "/details/") else { return health_or_not_found(path, "details") };
    json(
        StatusCode::OK,
        &json!({
            "id": id, "author": "William Shakespeare", "year": 1595, "type": "paperback", "pages": 200,
            "publisher": "PublisherA", "language": "English", "ISBN-10": "1234567890", "ISBN-13": "123-1234567890",
        }),
    )
}

/// `GET /ratings/ID`.
pub(super) fn ratings(path: &str) -> Answer {
    let Some(id) = number_after(path, "/ratings/") else { return health_or_not_found(path, "ratings") };
    json(StatusCode::OK, &json!({ "id": id, "ratings": { "Reviewer1": 5, "Reviewer2": 4 } }))
}

/// `GET /reviews/ID`; versions with stars ask ratings for them.
pub(super) async fn reviews(version: Version, path: &str, visitor: &HeaderMap, inside: &Inside) -> Answer {
    let Some(id) = number_after(path, "/reviews/") else { return health_or_not_found(path, "reviews") };
    let mut first = json!({ "reviewer": "Reviewer1", "text": "Mistaken twins, a gold chain and no dull page." });
    let mut second =
        json!({ "reviewer": "Reviewer2", "text": "A farce that is over too soon. I laughed on the train." });
    if let Some(color) = version.stars() {
        let given = inside.get("ratings", &format!("/ratings/{id}"), visitor).await;
        for review in [&mut first, &mut second] {
            let rating = rating_of(review, given.as_ref(), color);
            review.as_object_mut().map(|fields| fields.insert("rating".into(), rating));
        }
    }
    let podname = format!("reviews-{}-demo", version.label());
    json(StatusCode::OK, &json!({ "id": id.to_string(), "podname": podname, "reviews": [first, second] }))
}

fn rating_of(review: &Value, given: Option<&Value>, color: &str) -> Value {
    let reviewer = review.get("reviewer").and_then(Value::as_str).unwrap_or_default();
    let stars = given.and_then(|answer| answer.get("ratings")).and_then(|ratings| ratings.get(reviewer));
    match stars {
        Some(stars) => json!({ "stars": stars, "color": color }),
        None => json!({ "error": "ratings are not available now" }),
    }
}

fn number_after(path: &str, prefix: &str) -> Option<u32> {
    path.strip_prefix(prefix)?.parse().ok()
}

fn health_or_not_found(path: &str, service: &str) -> Answer {
    match path {
        "/health" => json(StatusCode::OK, &json!({ "status": format!("{service} is healthy") })),
        _ => not_found(),
    }
}
