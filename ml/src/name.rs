//! Names of models: `late_flights`, `late_flights@3`, `late_flights@champion`.

use std::fmt;

use engine::{Error, Result};

/// A model as users refer to it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ModelName {
    /// The name alone.
    pub name: String,
    /// Which version.
    pub version: VersionChoice,
}

/// Which version of a model is meant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum VersionChoice {
    /// The newest.
    Latest,
    /// This one.
    Number(u64),
    /// The one that the alias points to.
    Alias(String),
}

impl ModelName {
    /// The newest version.
    pub fn latest(name: impl Into<String>) -> Self {
        ModelName { name: name.into(), version: VersionChoice::Latest }
    }

    /// Reads `name`, `name@3` or `name@alias`.
    ///
    /// # Errors
    /// A name with characters that a directory's name should not have.
    pub fn parse(text: &str) -> Result<Self> {
        let (name, version) = match text.split_once('@') {
            None => (text, VersionChoice::Latest),
            Some((name, version)) => {
                let choice = match version.parse::<u64>() {
                    Ok(number) if number > 0 => VersionChoice::Number(number),
                    Ok(_) => return Err(Error::invalid(format!("{text}: versions begin with 1"))),
                    Err(_) => {
                        check_name(version)?;
                        VersionChoice::Alias(version.into())
                    }
                };
                (name, choice)
            }
        };
        check_name(name)?;
        Ok(ModelName { name: name.into(), version })
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        match &self.version {
            VersionChoice::Latest => Ok(()),
            VersionChoice::Number(number) => write!(f, "@{number}"),
            VersionChoice::Alias(alias) => write!(f, "@{alias}"),
        }
    }
}

/// A name that is a fit directory name everywhere: letters, digits, `_`, `-` and `.`, beginning with a letter or digit.
pub fn check_name(name: &str) -> Result<()> {
    let fits = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    let starts_well = name.chars().next().is_some_and(char::is_alphanumeric);
    if starts_well && name.chars().all(fits) && name.len() <= 200 {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "`{name}` is no model name: it begins with a letter and holds letters, digits, `_`, `-` and `.`"
    )))
}
