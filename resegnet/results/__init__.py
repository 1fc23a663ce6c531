"""`Segmentation`, and the numbers (`measure`), scores (`compare`), pictures (`render`) and files (`export`) of it."""
