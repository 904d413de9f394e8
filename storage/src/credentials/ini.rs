//! The files `~/.aws/config` and `~/.aws/credentials`: sections of `key = value`, comments after `#` and `;`, and lines that
//! begin with white space, which belong to the key above them.

use std::collections::BTreeMap;

/// Section -> key -> value; a nested key is `parent.key`.
pub(super) type Sections = BTreeMap<String, BTreeMap<String, String>>;

pub(super) fn parse(text: &str) -> Sections {
    let mut sections = Sections::new();
    let (mut section, mut parent) = (None, String::new());
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        if let Some(inside) = trimmed.strip_prefix('[') {
            let name = inside.split(']').next().unwrap_or_default();
            let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
            sections.entry(name.clone()).or_default();
            section = Some(name);
            parent.clear();
            continue;
        }
        let (Some(section), Some((key, value))) = (&section, trimmed.split_once('=')) else { continue };
        let value = [" #", " ;", "\t#", "\t;"]
            .iter()
            .filter_map(|mark| value.find(mark))
            .min()
            .map_or(value, |at| &value[..at]);
        let (key, value) = (key.trim().to_lowercase(), value.trim().to_string());
        let nested = line.starts_with([' ', '\t']) && !parent.is_empty();
        let full = if nested { format!("{parent}.{key}") } else { key.clone() };
        if !nested {
            parent = key;
        }
        sections.entry(section.clone()).or_default().insert(full, value);
    }
    sections
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_comments_and_nested_keys() {
        let text = "# c\n[default]\nregion = eu-west-1 # here\n[profile  dev]\ns3 =\n  addressing_style = path\nrole_arn=a=b\n; end\n";
        let sections = parse(text);
        assert_eq!(sections["default"]["region"], "eu-west-1");
        assert_eq!(sections["profile dev"]["s3.addressing_style"], "path");
        assert_eq!(sections["profile dev"]["role_arn"], "a=b");
        assert_eq!(sections.len(), 2);
    }
}
