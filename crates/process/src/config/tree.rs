//! The merged configuration as a tree in which every leaf knows the layer that set it.
//!
//! List elements keep the position that they had in the file, because wrong ones are taken out while the search for
//! further mistakes goes on, and a mistake must be reported at the position that the reader sees.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Origin;

/// One step from a node to a child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// A key of a map.
    Key(String),
    /// A present-day position in a list (not the one in the file).
    Index(usize),
}

#[derive(Debug, Clone)]
pub(super) enum Node {
    Leaf { value: Value, origin: Origin },
    List { items: Vec<(usize, Node)>, origin: Origin },
    Map { entries: BTreeMap<String, Node>, origin: Origin },
}

impl Node {
    pub(super) fn new(value: Value, origin: &Origin) -> Self {
        match value {
            Value::Array(items) => Node::List {
                items: items.into_iter().enumerate().map(|(at, item)| (at, Node::new(item, origin))).collect(),
                origin: origin.clone(),
            },
            Value::Object(entries) => Node::Map {
                entries: entries.into_iter().map(|(key, value)| (key, Node::new(value, origin))).collect(),
                origin: origin.clone(),
            },
            value => Node::Leaf { value, origin: origin.clone() },
        }
    }

    pub(super) fn to_value(&self) -> Value {
        match self {
            Node::Leaf { value, .. } => value.clone(),
            Node::List { items, .. } => items.iter().map(|(_, item)| item.to_value()).collect(),
            Node::Map { entries, .. } => {
                Value::Object(entries.iter().map(|(key, node)| (key.clone(), node.to_value())).collect())
            }
        }
    }

    fn origin(&self) -> &Origin {
        match self {
            Node::Leaf { origin, .. } | Node::List { origin, .. } | Node::Map { origin, .. } => origin,
        }
    }

    /// Lays `over` on top: maps merge key by key, anything else (lists too) replaces what was there.
    pub(super) fn overlay(&mut self, over: Node) {
        match (&mut *self, over) {
            (Node::Map { entries, .. }, Node::Map { entries: over, .. }) => {
                for (key, node) in over {
                    match entries.get_mut(&key) {
                        Some(below) => below.overlay(node),
                        None => {
                            entries.insert(key, node);
                        }
                    }
                }
            }
            // A key without a value in a file ("limits:") means that nothing was said, not that a map is to vanish.
            (Node::Map { .. }, Node::Leaf { value: Value::Null, .. }) => {}
            (_, over) => *self = over,
        }
    }

    /// Sets the node at a dotted key, making maps on the way.
    pub(super) fn set(&mut self, key: &str, node: Node) {
        let over = key.rsplit('.').fold(node, |node, key| {
            let origin = node.origin().clone();
            Node::Map { entries: BTreeMap::from([(key.to_owned(), node)]), origin }
        });
        self.overlay(over);
    }

    /// The layer that set what lies at `path`, or the nearest node above it.
    pub(super) fn origin_at(&self, path: &[Step]) -> &Origin {
        let mut node = self;
        for step in path {
            match node.child(step) {
                Some(child) => node = child,
                None => break,
            }
        }
        node.origin()
    }

    fn child(&self, step: &Step) -> Option<&Node> {
        match (self, step) {
            (Node::Map { entries, .. }, Step::Key(key)) => entries.get(key),
            (Node::List { items, .. }, Step::Index(at)) => items.get(*at).map(|(_, node)| node),
            _ => None,
        }
    }

    /// Whether a list lies at `path`.
    pub(super) fn is_list(&self, path: &[Step]) -> bool {
        let end = path.iter().try_fold(self, |node, step| node.child(step));
        matches!(end, Some(Node::List { .. }))
    }

    /// `path` as an operator writes it, list positions as in the file.
    pub(super) fn key(&self, path: &[Step]) -> String {
        let mut key = String::new();
        let mut node = Some(self);
        for step in path {
            match step {
                Step::Key(name) => {
                    if !key.is_empty() {
                        key.push('.');
                    }
                    key.push_str(name);
                }
                Step::Index(at) => {
                    let position = match node {
                        Some(Node::List { items, .. }) => items.get(*at).map_or(*at, |(position, _)| *position),
                        _ => *at,
                    };
                    key.push_str(&format!("[{position}]"));
                }
            }
            node = node.and_then(|node| node.child(step));
        }
        key
    }

    /// Takes out what lies at `path`, or the nearest node above it that exists; the root cannot be taken out.
    pub(super) fn remove(&mut self, path: &[Step]) -> Removed {
        let Some((step, below)) = path.split_first() else { return Removed::Nothing };
        if self.child_mut(step).is_some_and(|child| child.remove(below) == Removed::Something) {
            return Removed::Something;
        }
        match (self, step) {
            (Node::Map { entries, .. }, Step::Key(key)) if entries.contains_key(key) => {
                entries.remove(key);
                Removed::Something
            }
            (Node::List { items, .. }, Step::Index(at)) if *at < items.len() => {
                items.remove(*at);
                Removed::Something
            }
            _ => Removed::Nothing,
        }
    }

    fn child_mut(&mut self, step: &Step) -> Option<&mut Node> {
        match (self, step) {
            (Node::Map { entries, .. }, Step::Key(key)) => entries.get_mut(key),
            (Node::List { items, .. }, Step::Index(at)) => items.get_mut(*at).map(|(_, node)| node),
            _ => None,
        }
    }

    /// Dotted keys of all nodes that are not maps with entries: what a flag or a variable can set.
    pub(super) fn leaves(&self) -> Vec<String> {
        fn walk(node: &Node, prefix: &str, out: &mut Vec<String>) {
            match node {
                Node::Map { entries, .. } if !entries.is_empty() => {
                    for (key, node) in entries {
                        let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                        walk(node, &key, out);
                    }
                }
                _ => out.push(prefix.to_owned()),
            }
        }
        let mut out = Vec::new();
        walk(self, "", &mut out);
        out
    }
}

/// Whether [`Node::remove`] changed the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Removed {
    Something,
    Nothing,
}
