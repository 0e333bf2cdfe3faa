//! Which word was meant by one that nobody knows.

/// The known word that was probably meant.
pub(super) fn near<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    if word.len() > 40 {
        return None;
    }
    let begins =
        |known: &&&str| word.len() >= 4 && known.starts_with(word) || known.len() >= 4 && word.starts_with(**known);
    let close = known.iter().map(|known| (distance(word, known), *known)).min();
    match close {
        Some((distance, known)) if distance <= 2 && distance * 2 < known.len() => Some(known),
        _ => known.iter().find(begins).copied(),
    }
}

/// How many characters to insert, remove or replace to get from one word to the other.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (above, one) in from.chars().enumerate() {
        let mut diagonal = above;
        let mut left = above + 1;
        for (cell, other) in row.iter_mut().skip(1).zip(&to) {
            let replaced = diagonal + usize::from(one != *other);
            diagonal = *cell;
            left = replaced.min(left + 1).min(*cell + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = above + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}
