"""Labels from the tables of a biobank or a hospital: phenotypes, diagnoses with dates, statements about ECGs."""
