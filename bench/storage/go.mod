module benchstorage

go 1.26.0
