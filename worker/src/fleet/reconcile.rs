//! Two who have written one document without knowing of each other: a handler while its worker could not reach the store,
//! and somebody else through another worker.

use serde_json::{Map, Value};

/// What has come of both.
#[derive(Debug, PartialEq)]
pub(super) struct Reconciled {
    /// The document.
    pub(super) data: Map<String, Value>,
    /// Members that both have changed, and not alike: the handler's are in the document, the others are lost.
    pub(super) lost: Vec<String>,
}

/// Puts the changes of both on what they began with, member by member. Where both have changed one, the handler's stays:
/// it is the one who has gone on with it.
pub(super) fn reconcile(
    base: &Map<String, Value>,
    ours: &Map<String, Value>,
    theirs: &Map<String, Value>,
) -> Reconciled {
    let (mut data, mut lost) = (theirs.clone(), Vec::new());
    let names: std::collections::BTreeSet<&String> = base.keys().chain(ours.keys()).collect();
    for name in names {
        let (before, here, there) = (base.get(name), ours.get(name), theirs.get(name));
        if here == before {
            continue;
        }
        if there != before && there != here {
            lost.push(name.clone());
        }
        match here {
            Some(value) => drop(data.insert(name.clone(), value.clone())),
            None => drop(data.remove(name)),
        }
    }
    Reconciled { data, lost }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn each_keeps_what_only_it_has_changed() {
        let check = |base: Value, ours: Value, theirs: Value, data: Value, lost: &[&str]| {
            let reconciled = reconcile(&object(base), &object(ours), &object(theirs));
            assert_eq!(
                (Value::Object(reconciled.data), reconciled.lost),
                (data, lost.iter().map(|l| (*l).to_owned()).collect())
            );
        };
        let base = json!({"a": 1, "b": 1});
        check(
            base.clone(),
            json!({"a": 2, "b": 1}),
            json!({"a": 1, "b": 3, "c": 4}),
            json!({"a": 2, "b": 3, "c": 4}),
            &[],
        );
        check(base.clone(), json!({"a": 1}), base.clone(), json!({"a": 1}), &[]);
        check(base.clone(), base.clone(), json!({}), json!({}), &[]);
        check(base.clone(), json!({"a": 2, "b": 1}), json!({"a": 3, "b": 1}), json!({"a": 2, "b": 1}), &["a"]);
        check(base.clone(), json!({"b": 1}), json!({"a": 3, "b": 1}), json!({"b": 1}), &["a"]);
        check(base.clone(), json!({"a": 2, "b": 1}), json!({"b": 1}), json!({"a": 2, "b": 1}), &["a"]);
        check(base, json!({"a": 2, "b": 1}), json!({"a": 2, "b": 1}), json!({"a": 2, "b": 1}), &[]);
    }

    fn document() -> impl Strategy<Value = Map<String, Value>> {
        proptest::collection::btree_map("[abc]", 0..3_i32, 0..3)
            .prop_map(|map| map.into_iter().map(|(k, v)| (k, Value::from(v))).collect())
    }

    proptest! {
        #[test]
        fn nothing_is_lost_that_is_not_named(base in document(), ours in document(), theirs in document()) {
            let Reconciled { data, lost } = reconcile(&base, &ours, &theirs);
            for name in ["a", "b", "c"] {
                let (before, here, there, now) = (base.get(name), ours.get(name), theirs.get(name), data.get(name));
                if here != before {
                    prop_assert_eq!(now, here);
                } else {
                    prop_assert_eq!(now, there);
                }
                let named = lost.iter().any(|lost| lost == name);
                prop_assert_eq!(named, there != before && now != there);
            }
        }
    }
}
