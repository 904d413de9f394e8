//! CREATE TABLE, VIEW and SCHEMA: columns, constraints and options.

use datafusion::sql::parser::CreateExternalTable;
use datafusion::sql::sqlparser::ast::{
    CheckConstraint, ColumnDef, ColumnOption, ColumnOptionDef, ConstraintCharacteristics, CreateTable,
    CreateTableOptions, CreateView, Expr, Ident, IndexColumn, ObjectName, OrderByExpr, PrimaryKeyConstraint,
    SchemaName, SqlOption, TableConstraint, UniqueConstraint, ViewColumnDef,
};

use super::Clauses;
use crate::error::Result;

impl Clauses<'_> {
    pub(super) fn create_table(&mut self, table: &mut CreateTable) -> Result<()> {
        let CreateTable {
            or_replace: _,
            // Every table is gone when the session ends.
            temporary,
            name,
            columns,
            constraints,
            table_options,
            query,
            if_not_exists: _,
            // The planner names and refuses each of these.
            external: _,
            dynamic: _,
            global: _,
            transient: _,
            volatile: _,
            iceberg: _,
            snapshot: _,
            hive_distribution: _,
            hive_formats: _,
            file_format: _,
            location: _,
            without_rowid: _,
            like: _,
            clone: _,
            version: _,
            comment: _,
            on_commit: _,
            on_cluster: _,
            primary_key: _,
            order_by: _,
            partition_by: _,
            cluster_by: _,
            clustered_by: _,
            inherits: _,
            partition_of: _,
            for_values: _,
            strict: _,
            copy_grants: _,
            enable_schema_evolution: _,
            change_tracking: _,
            data_retention_time_in_days: _,
            max_data_extension_time_in_days: _,
            default_ddl_collation: _,
            with_aggregation_policy: _,
            with_row_access_policy: _,
            with_storage_lifecycle_policy: _,
            with_tags: _,
            external_volume: _,
            base_location: _,
            catalog: _,
            catalog_sync: _,
            storage_serialization_policy: _,
            target_lag: _,
            warehouse: _,
            refresh_mode: _,
            initialize: _,
            require_user: _,
            diststyle: _,
            distkey: _,
            sortkey: _,
            backup: _,
        } = table;
        self.seen_name(name);
        if *temporary {
            *temporary = false;
        }
        self.table_options(table_options)?;
        self.columns(columns)?;
        self.constraints(constraints)?;
        match query {
            Some(query) => self.query(query),
            None => Ok(()),
        }
    }

    pub(super) fn create_external_table(&mut self, table: &mut CreateExternalTable) -> Result<()> {
        let CreateExternalTable {
            name,
            columns,
            file_type: _,
            locations: _,
            table_partition_cols: _,
            order_exprs,
            if_not_exists: _,
            or_replace: _,
            temporary: _,
            unbounded: _,
            options: _,
            constraints,
        } = table;
        self.seen_name(name);
        self.columns(columns)?;
        order_exprs.iter_mut().try_for_each(|order| self.order_exprs(order))?;
        let keyed = columns.iter().flat_map(|column| &column.options).find_map(|option| key_of_column(&option.option));
        let keyed = keyed.or_else(|| constraints.iter().find_map(key_of_table));
        if let Some(key) = keyed {
            return Err(self.of_files(key).with_hint("nothing can see to it that the rows of files are unique"));
        }
        self.constraints(constraints)
    }

    fn of_files(&self, clause: &str) -> crate::error::Error {
        let error = crate::error::Error::invalid(format!("{clause} of an external table is not supported"));
        error.at_offset(self.place_of(clause))
    }

    pub(super) fn create_view(&mut self, view: &mut CreateView) -> Result<()> {
        let CreateView {
            or_alter,
            or_replace: _,
            secure,
            name,
            name_before_not_exists: _,
            columns,
            query,
            options,
            params,
            temporary: _,
            // The planner names and refuses each of these.
            materialized: _,
            cluster_by: _,
            comment: _,
            with_no_schema_binding: _,
            if_not_exists: _,
            copy_grants: _,
            to: _,
        } = view;
        self.seen_name(name);
        self.not("OR ALTER", *or_alter)?;
        self.not("SECURE", *secure)?;
        if params.is_some() {
            return Err(self.refuse_here("a parameter of a view"));
        }
        self.table_options(options)?;
        for ViewColumnDef { name, data_type, options } in columns {
            self.seen_ident(name);
            if data_type.is_some() || options.is_some() {
                return Err(self.refuse_here("a type or an option behind a view's column"));
            }
        }
        self.query(query)
    }

    pub(super) fn create_schema(
        &mut self,
        name: &SchemaName,
        with: &Option<Vec<SqlOption>>,
        options: &Option<Vec<SqlOption>>,
        default_collate_spec: &Option<Expr>,
        clone: &Option<ObjectName>,
    ) -> Result<()> {
        match name {
            SchemaName::Simple(name) => self.seen_name(name),
            SchemaName::UnnamedAuthorization(_) | SchemaName::NamedAuthorization(_, _) => {
                return Err(self.refuse("AUTHORIZATION"));
            }
        }
        self.none("WITH", with)?;
        self.none("OPTIONS", options)?;
        self.none("DEFAULT COLLATE", default_collate_spec)?;
        self.none("CLONE", clone)
    }

    fn table_options(&mut self, options: &CreateTableOptions) -> Result<()> {
        match options {
            CreateTableOptions::None => Ok(()),
            CreateTableOptions::With(_) => Err(self.refuse("WITH")),
            CreateTableOptions::Options(_) => Err(self.refuse("OPTIONS")),
            CreateTableOptions::TableProperties(_) => Err(self.refuse("TBLPROPERTIES")),
            CreateTableOptions::Plain(options) => {
                let shown = options.first().map(ToString::to_string).unwrap_or_default();
                let clause = shown.split([' ', '=']).next().unwrap_or_default().to_uppercase();
                Err(self.refuse(&clause))
            }
        }
    }

    fn columns(&mut self, columns: &mut [ColumnDef]) -> Result<()> {
        for ColumnDef { name, data_type: _, options } in columns {
            self.seen_ident(name);
            for ColumnOptionDef { name: _, option } in options {
                self.column_option(name, option)?;
            }
        }
        Ok(())
    }

    fn column_option(&mut self, column: &Ident, option: &mut ColumnOption) -> Result<()> {
        let what = match option {
            ColumnOption::Null | ColumnOption::NotNull => return Ok(()),
            ColumnOption::Default(value) => return self.expression(value),
            ColumnOption::PrimaryKey(key) => return self.primary_key(key),
            ColumnOption::Unique(key) => return self.unique(key),
            ColumnOption::Check(CheckConstraint { name: _, expr: _, enforced: _ }) => "CHECK",
            ColumnOption::ForeignKey(_) => "REFERENCES",
            ColumnOption::Generated {
                generated_as: _,
                sequence_options: _,
                generation_expr: _,
                generation_expr_mode: _,
                generated_keyword,
            } => match generated_keyword {
                true => "GENERATED",
                false => "AS",
            },
            ColumnOption::Materialized(_) => "MATERIALIZED",
            ColumnOption::Ephemeral(_) => "EPHEMERAL",
            ColumnOption::Alias(_) => "ALIAS",
            ColumnOption::CharacterSet(_) => "CHARACTER SET",
            ColumnOption::Collation(_) => "COLLATE",
            ColumnOption::Comment(_) => "COMMENT",
            ColumnOption::OnUpdate(_) => "ON UPDATE",
            ColumnOption::Options(_) => "OPTIONS",
            ColumnOption::Identity(_) => "IDENTITY",
            ColumnOption::OnConflict(_) => "ON CONFLICT",
            ColumnOption::Policy(_) => "POLICY",
            ColumnOption::Tags(_) => "TAG",
            ColumnOption::Srid(_) => "SRID",
            ColumnOption::Invisible => "INVISIBLE",
            ColumnOption::DialectSpecific(words) => {
                let words: Vec<String> = words.iter().map(ToString::to_string).collect();
                return Err(self.of_column(column, &words.join(" ")));
            }
        };
        Err(self.of_column(column, what))
    }

    fn of_column(&self, column: &Ident, what: &str) -> crate::error::Error {
        let error = crate::error::Error::invalid(format!("{what} of column `{column}` is not supported"));
        error.at_offset(self.offset(self.at))
    }

    fn constraints(&mut self, constraints: &[TableConstraint]) -> Result<()> {
        constraints.iter().try_for_each(|constraint| match constraint {
            TableConstraint::Unique(key) => self.unique(key),
            TableConstraint::PrimaryKey(key) => self.primary_key(key),
            TableConstraint::ForeignKey(_) => Err(self.refuse("FOREIGN KEY")),
            TableConstraint::Check(CheckConstraint { name: _, expr: _, enforced: _ }) => Err(self.refuse("CHECK")),
            TableConstraint::Index(_) => Err(self.refuse("INDEX")),
            TableConstraint::FulltextOrSpatial(_) => Err(self.refuse("FULLTEXT")),
            TableConstraint::PrimaryKeyUsingIndex(_) => Err(self.refuse("PRIMARY KEY USING INDEX")),
            TableConstraint::UniqueUsingIndex(_) => Err(self.refuse("UNIQUE USING INDEX")),
        })
    }

    fn primary_key(&self, key: &PrimaryKeyConstraint) -> Result<()> {
        let PrimaryKeyConstraint { name: _, index_name: _, index_type, columns, index_options, characteristics } = key;
        self.none("USING", index_type)?;
        if !index_options.is_empty() {
            return Err(self.refuse("PRIMARY KEY with an option of its index"));
        }
        self.characteristics(characteristics)?;
        self.key_columns("PRIMARY KEY", columns)
    }

    fn unique(&self, key: &UniqueConstraint) -> Result<()> {
        let UniqueConstraint {
            name: _,
            index_name: _,
            index_type_display: _,
            index_type,
            columns,
            index_options,
            characteristics,
            nulls_distinct,
        } = key;
        use datafusion::sql::sqlparser::ast::NullsDistinctOption;
        match nulls_distinct {
            NullsDistinctOption::None | NullsDistinctOption::Distinct => {}
            NullsDistinctOption::NotDistinct => return Err(self.refuse("NULLS NOT DISTINCT")),
        }
        self.none("USING", index_type)?;
        if !index_options.is_empty() {
            return Err(self.refuse("UNIQUE with an option of its index"));
        }
        self.characteristics(characteristics)?;
        self.key_columns("UNIQUE", columns)
    }

    fn characteristics(&self, characteristics: &Option<ConstraintCharacteristics>) -> Result<()> {
        let Some(ConstraintCharacteristics { deferrable, initially, enforced }) = characteristics else {
            return Ok(());
        };
        self.none("DEFERRABLE", deferrable)?;
        self.none("INITIALLY", initially)?;
        match enforced {
            Some(false) => Err(self.refuse("NOT ENFORCED")),
            Some(true) | None => Ok(()),
        }
    }

    fn key_columns(&self, clause: &str, columns: &[IndexColumn]) -> Result<()> {
        columns.iter().try_for_each(|column| {
            let IndexColumn { column: OrderByExpr { expr, options: _, with_fill: _ }, operator_class } = column;
            if operator_class.is_some() || !matches!(expr, Expr::Identifier(_)) {
                return Err(self.refuse(clause).with_hint("a key is made of columns"));
            }
            Ok(())
        })
    }
}

fn key_of_column(option: &ColumnOption) -> Option<&'static str> {
    match option {
        ColumnOption::PrimaryKey(_) => Some("PRIMARY KEY"),
        ColumnOption::Unique(_) => Some("UNIQUE"),
        _ => None,
    }
}

fn key_of_table(constraint: &TableConstraint) -> Option<&'static str> {
    match constraint {
        TableConstraint::PrimaryKey(_) => Some("PRIMARY KEY"),
        TableConstraint::Unique(_) => Some("UNIQUE"),
        _ => None,
    }
}
