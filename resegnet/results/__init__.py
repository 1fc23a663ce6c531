"""`Segmentation` and what is made of it: numbers (`measure`), scores (`compare`), pictures (`render`), files (`export`)."""
