"""What is made of a `Segmentation`: numbers (`measure`), pictures (`render`) and files (`export`)."""
