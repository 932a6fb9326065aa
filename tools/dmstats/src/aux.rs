// SPDX-License-Identifier: GPL-2.0

//! The word that a program keeps with a region, and the group that may be described in it:
//!
//! ```text
//! word      = [ group ] user
//! group     = "DMS_GROUP=" [ '"' alias '"' ] ":" members "#"
//! members   = see `IdSet`; the first is the region that has the word, the group's leader
//! user      = "-" if there is none
//! ```
//!
//! It is written exactly so, because other programs read it. It is read with more patience: older programs
//! wrote the alias without quotes.

use crate::IdSet;

const TAG: &[u8] = b"DMS_GROUP=";

/// What takes the place of what must not be in an alias: a colon would end it for other programs, and a
/// line end would end the row that they read it from.
const SUBSTITUTE: u8 = b'_';

/// What a region's word says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Aux {
    /// The group that this region leads.
    pub group: Option<Descriptor>,
    /// The user's own data, which may be empty.
    pub user: Vec<u8>,
}

/// A group, as its leader describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Its name, which may be empty.
    pub alias: Vec<u8>,
    /// The regions in it.
    pub members: IdSet,
}

/// There is a group's tag in the word, but no group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadGroup;

impl Aux {
    /// Reads a word. Of one with a bad group the user's data is given as well, as far as it is known.
    pub fn parse(word: &[u8]) -> Result<Self, (BadGroup, Vec<u8>)> {
        let Some(at) = word.windows(TAG.len()).position(|window| window == TAG) else {
            return Ok(Aux {
                group: None,
                user: user(word),
            });
        };
        let (before, rest) = (&word[..at], &word[at + TAG.len()..]);
        let (group, after) = descriptor(rest);
        let mut both = before.to_vec();
        both.extend(after);
        match group {
            Some(group) => Ok(Aux {
                group: Some(group),
                user: user(&both),
            }),
            None => Err((BadGroup, user(&both))),
        }
    }

    /// The word, as it is stored.
    pub fn format(&self) -> Vec<u8> {
        let mut word = Vec::new();
        if let Some(group) = &self.group {
            word.extend(TAG);
            if !group.alias.is_empty() {
                word.push(b'"');
                word.extend(sanitized(&group.alias));
                word.push(b'"');
            }
            word.push(b':');
            word.extend(group.members.to_string().bytes());
            word.push(b'#');
        }
        if self.user.is_empty() {
            word.push(b'-');
        }
        word.extend(&self.user);
        word
    }
}

/// An alias without what would lose the group for other programs.
pub fn sanitized(alias: &[u8]) -> Vec<u8> {
    let replace = |byte: &u8| {
        if matches!(byte, b':' | b'\n' | 0) {
            SUBSTITUTE
        } else {
            *byte
        }
    };
    alias.iter().map(replace).collect()
}

fn user(word: &[u8]) -> Vec<u8> {
    if word == b"-" {
        Vec::new()
    } else {
        word.to_vec()
    }
}

/// Reads what follows the tag, and gives back the rest.
///
/// An alias of an earlier version of ours, or of somebody else, may have colons: so the last colon before a
/// list of members that ends the group is the separator, and if there is none, the first.
fn descriptor(text: &[u8]) -> (Option<Descriptor>, &[u8]) {
    let quoted = text.first() == Some(&b'"');
    let separators = text
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b':')
        .map(|(at, _)| at);
    for at in separators {
        let (name, list) = (&text[..at], &text[at + 1..]);
        let alias = match name {
            [b'"', alias @ .., b'"'] if quoted => alias,
            _ if quoted => continue,
            _ => name,
        };
        let end = list
            .iter()
            .position(|byte| *byte == b'#')
            .unwrap_or(list.len());
        if let Some(members) = IdSet::parse(&list[..end]) {
            let group = Descriptor {
                alias: alias.to_vec(),
                members,
            };
            return (Some(group), list.get(end + 1..).unwrap_or_default());
        }
        if !quoted {
            break;
        }
    }
    let end = text
        .iter()
        .rposition(|byte| *byte == b'#')
        .map_or(text.len(), |at| at + 1);
    (None, &text[end..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(word: &[u8]) -> (Vec<u8>, String, Vec<u8>) {
        let aux = Aux::parse(word).unwrap();
        let group = aux.group.expect("no group");
        (group.alias, group.members.to_string(), aux.user)
    }

    #[test]
    fn groups_are_read_in_every_form_there_is() {
        for (word, alias, members, user) in [
            (
                &b"DMS_GROUP=\"db1\":0-3#-"[..],
                &b"db1"[..],
                "0-3",
                &b""[..],
            ),
            (b"DMS_GROUP=:0-1#-", b"", "0-1", b""),
            (b"DMS_GROUP=img:0-3#", b"img", "0-3", b""),
            (b"DMS_GROUP=\"a\":0,2", b"a", "0,2", b""),
            (b"DMS_GROUP=\"a\":0,0#-", b"a", "0", b""),
            (b"fooDMS_GROUP=\"a\":0#", b"a", "0", b"foo"),
            (b"DMS_GROUP=\"a\":1-2#word#", b"a", "1-2", b"word#"),
            (b"DMS_GROUP=\"a#=\\ \"b\":1#-", b"a#=\\ \"b", "1", b""),
            (b"DMS_GROUP=\"voil\xe0\":4#-", b"voil\xe0", "4", b""),
            (b"DMS_GROUP=\"a:b\":4#-", b"a:b", "4", b""),
        ] {
            assert_eq!(
                read(word),
                (alias.to_vec(), members.into(), user.to_vec()),
                "{}",
                word.escape_ascii()
            );
        }
    }

    #[test]
    fn a_bad_group_is_told_from_none_and_keeps_the_users_data() {
        assert_eq!(Aux::parse(b"-").unwrap(), Aux::default());
        for word in [
            "DMS_GROUP=",
            "DMS_GROUP=img",
            "DMS_GROUP=\"a\":1-0#",
            "DMS_GROUP=:0-#",
            "DMS_GROUP=:x#",
        ] {
            assert_eq!(
                Aux::parse(word.as_bytes()),
                Err((BadGroup, Vec::new())),
                "{word}"
            );
        }
        assert_eq!(
            Aux::parse(b"DMS_GROUP=:x#mine"),
            Err((BadGroup, b"mine".to_vec()))
        );
    }

    #[test]
    fn an_alias_never_loses_its_group_for_other_programs() {
        let group = Descriptor {
            alias: b"a:b\nc".to_vec(),
            members: IdSet::parse(b"3").unwrap(),
        };
        let aux = Aux {
            group: Some(group),
            user: Vec::new(),
        };
        assert_eq!(aux.format(), b"DMS_GROUP=\"a_b_c\":3#-");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn what_is_written_is_read_back(
            alias in "[a-z \"#=\\\\,-]{0,12}",
            ids in proptest::collection::vec(0u32..50, 1..9),
            user in "[a-z0-9#:]{0,6}",
        ) {
            let group = Descriptor { alias: alias.into_bytes(), members: ids.into_iter().collect() };
            let aux = Aux { group: Some(group), user: user.into_bytes() };
            prop_assert_eq!(Aux::parse(&aux.format()), Ok(aux));
        }

        #[test]
        fn no_word_is_too_strange(word in "(DMS_GROUP=)?[\"a:#0-9,=-]{0,24}(DMS_GROUP=)?[\"a:#0-9,=-]{0,9}") {
            let _ = Aux::parse(word.as_bytes());
        }

        #[test]
        fn no_bytes_are_too_strange(word in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut tagged = TAG.to_vec();
            tagged.extend(&word);
            let _ = (Aux::parse(&word), Aux::parse(&tagged));
        }
    }
}
