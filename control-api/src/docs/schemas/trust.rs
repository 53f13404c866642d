//! Reviews and scores.

use serde_json::Value;

use super::{
    super::shape::{count, decimal, flag, id, input, moment, number, object, or_null, text, text_of, word},
    Named,
};

pub(super) fn schemas() -> Vec<Named> {
    vec![("Review", review()), ("ReviewInput", review_input()), ("ReviewSummary", summary()), ("Score", score())]
}

fn stars(about: &str) -> Value {
    number(1, 5, about, 5)
}

fn review() -> Value {
    let reviewer = object(
        "Who says so.",
        &[
            ("id", id("The buyer.")),
            ("display_name", or_null(text("Untrusted.", "Weather buyer"))),
            ("is_verified", flag("Its score is 800 or more.", false)),
            ("score", number(0, 1000, "As it was then: by this it weighs.", 300)),
        ],
    );
    object(
        "What a buyer thinks. Title and comment are written by the buyer: untrusted.",
        &[
            ("id", id("The review.")),
            ("listing_id", id("Of what.")),
            ("reviewer", reviewer),
            ("accuracy_rating", stars("Is it right?")),
            ("reliability_rating", stars("Does it answer?")),
            ("value_rating", stars("Is it worth it?")),
            ("rating", stars("The three, as one.")),
            ("title", or_null(text("Untrusted.", "Always right"))),
            ("comment", or_null(text("Untrusted.", "Never rained when it said sun."))),
            ("purchases", count("Calls that it bought lately.", 3)),
            ("created_at", moment("Written then.")),
        ],
    )
}

fn review_input() -> Value {
    input(
        "What you think, after a paid call that the seller handled in the last 90 days.",
        &[
            ("accuracy_rating", stars("Is it right?")),
            ("reliability_rating", stars("Does it answer?")),
            ("value_rating", stars("Is it worth it?")),
            ("title?", or_null(text_of(0, 120, "One line.", "Always right"))),
            ("comment?", or_null(text_of(0, 2000, "More.", "Never rained when it said sun."))),
        ],
    )
}

fn summary() -> Value {
    let average = || or_null(decimal("Stars, weighted by who says so; null without a review.", 4.5));
    let averages = object(
        "On average.",
        &[("overall", average()), ("accuracy", average()), ("reliability", average()), ("value", average())],
    );
    let histogram = ["1", "2", "3", "4", "5"].map(|stars| (stars, count("So often.", 1)));
    let histogram = object("How often so many stars were given.", &histogram);
    object(
        "All reviews of a listing.",
        &[("count", count("Reviews.", 5)), ("averages", averages), ("histogram", histogram)],
    )
}

fn score() -> Value {
    let part = |about: &str| number(0, 1000, about, 500);
    let components = object(
        "The five parts.",
        &[
            ("reliability", part("Does it answer?")),
            ("accuracy", part("Are its answers right?")),
            ("volume", part("For how many, and for how much?")),
            ("longevity", part("For how long?")),
            ("reputation", part("What do buyers say?")),
        ],
    );
    let sample = object(
        "What it rests on.",
        &[("calls", count("Paid calls.", 40)), ("buyers", count("Distinct.", 7)), ("reviews", count("Reviews.", 3))],
    );
    object(
        "How far an agent can be trusted.",
        &[
            ("agent_id", id("Who.")),
            ("score", number(0, 1000, "The score.", 300)),
            ("tier", word("The score in a word.", &["Low", "Moderate", "Trusted", "Elite", "Exceptional"])),
            ("is_verified", flag("800 or more.", false)),
            ("components", components),
            ("sample", sample),
            ("computed_at", moment("Made then.")),
        ],
    )
}
